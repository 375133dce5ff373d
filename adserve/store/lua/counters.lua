#!lua name=$library
-- The frequency counters of limits/counters.py, kept in Redis: the same rules, to the letter.
--
-- A viewer is one string: the format's byte; 2 bytes that count the hides, each a key after its length's byte and 6 bytes of its
-- moment; then groups of entries that count on the same keys. A group is its keys as a msgpack array, 2 bytes that count the
-- entries, and each of them: the low half of the ticket's id, and 6 bytes with state (2 bits) and moment (46 bits).
-- The moment is the expiry of a ticket that is reserved, the last one that a doubted ticket's event may be stored with, else when
-- the impression was received.
--
-- Every call names the node's token and what it must be. A node that lost anything has another one or none.

local FORMAT = '\1'
local EMPTY_HIDES = '\0\0'
local TICKET_BYTES, ENTRY_BYTES = 8, 14
local RESERVED, CONFIRMED, DOUBTED, REFUSED = 0, 1, 2, 3
local STATE = 2 ^ 46  -- libraries, as `string`, are there only when a function runs, not here
local ALL, PACE = '*', 't'
local GUARANTEED = 0  -- the tier
local UNKNOWN = '?'
local GRACE_MS, RETENTION_MS, EXPOSURE_MS = $grace_ms, $retention_ms, $exposure_ms
local OPEN_MAX, ENTRIES_MAX = $open_max, $entries_max

-- One call of C reads so many entries: a call for each would be most of what a decision costs here.
local AT_ONCE = 200
local NUMBER, SKIPPING = '>I6', 'xxxxxxxxI6'
local forms = {}

local function read_hides(blob)
  local hides = {}
  local count, at = struct.unpack('>I2', blob, 2)
  for _ = 1, count do
    local size = string.byte(blob, at)
    hides[string.sub(blob, at + 1, at + size)] = struct.unpack('>I6', blob, at + size + 1)
    at = at + size + 7
  end
  return hides, at
end

-- The states with moments of entries that lie one after the other.
local function numbers_of(blob, at, count)
  local first = math.min(count, AT_ONCE)
  if not forms[first] then forms[first] = '>' .. string.rep(SKIPPING, first) end
  local numbers = { struct.unpack(forms[first], blob, at) }
  numbers[first + 1] = nil  -- where it ended
  for nth = first + 1, count do
    numbers[nth] = struct.unpack(NUMBER, blob, at + (nth - 1) * ENTRY_BYTES + TICKET_BYTES)
  end
  return numbers
end

-- A group has its `keys` and its `entries` as they are kept, and `numbers`, one for each entry.
local function read(blob)
  local groups = {}
  if not blob then return groups, {} end
  if string.sub(blob, 1, 1) ~= FORMAT then error('a viewer of an unknown format') end
  local hides, at = read_hides(blob)
  while at <= #blob do
    local after, names = cmsgpack.unpack_one(blob, at - 1)
    local count = struct.unpack('>I2', blob, after + 1)
    local first, last = after + 3, after + 2 + count * ENTRY_BYTES
    groups[#groups + 1] = {
      keys = string.sub(blob, at, after), names = names,
      entries = string.sub(blob, first, last), numbers = numbers_of(blob, first, count),
    }
    at = last + 1
  end
  return groups, hides
end

local function apart(number)
  local state = math.floor(number / STATE)
  return state, number - state * STATE
end

local function open(state, moment, now)
  return (state == RESERVED or state == DOUBTED) and now <= moment + GRACE_MS
end

local function lapsed(number, now)
  local state, moment = apart(number)
  if state == RESERVED then return now > moment + GRACE_MS end
  return now - moment >= RETENTION_MS
end

-- Whether so many more entries would be too many.
local function overfull(groups, more, now)
  local held = more
  for _, group in ipairs(groups) do held = held + #group.numbers end
  if held <= ENTRIES_MAX then return false end
  for _, group in ipairs(groups) do
    for _, number in ipairs(group.numbers) do
      if lapsed(number, now) then held = held - 1 end
    end
  end
  return held > ENTRIES_MAX
end

-- Leaves out what has lapsed; the key vanishes by itself when all of it has.
local function write(key, groups, hides, now)
  local parts, kept_hides, keep_until = { FORMAT, EMPTY_HIDES }, 0, now
  for name, moment in pairs(hides) do
    if now - moment < RETENTION_MS then
      kept_hides = kept_hides + 1
      parts[#parts + 1] = string.char(#name) .. name .. struct.pack('>I6', moment)
      keep_until = math.max(keep_until, moment + RETENTION_MS)
    end
  end
  parts[2] = struct.pack('>I2', kept_hides)
  for _, group in ipairs(groups) do
    local numbers, entries, lapsing = group.numbers, group.entries, false
    for nth = 1, #numbers do
      local number = numbers[nth]
      local last = number < STATE and number + GRACE_MS or number % STATE + RETENTION_MS - 1
      if now > last then lapsing = true elseif last > keep_until then keep_until = last end
    end
    local count = #numbers
    if lapsing then
      local kept = {}
      for nth = 1, #numbers do
        if not lapsed(numbers[nth], now) then
          kept[#kept + 1] = string.sub(entries, (nth - 1) * ENTRY_BYTES + 1, nth * ENTRY_BYTES)
        end
      end
      entries, count = table.concat(kept), #kept
    end
    if count > 0 then parts[#parts + 1] = group.keys .. struct.pack('>I2', count) .. entries end
  end
  if #parts == 2 then
    redis.call('DEL', key)
  else
    redis.call('SET', key, table.concat(parts), 'PX', keep_until - now + GRACE_MS)
  end
end

local function group_of(groups, keys)
  for _, group in ipairs(groups) do
    if group.keys == keys then return group end
  end
  local group = { keys = keys, names = cmsgpack.unpack(keys), entries = '', numbers = {} }
  groups[#groups + 1] = group
  return group
end

local function add(groups, keys, ticket, state, moment)
  local group, number = group_of(groups, keys), state * STATE + moment
  group.entries = group.entries .. ticket .. struct.pack(NUMBER, number)
  group.numbers[#group.numbers + 1] = number
end

local function find(groups, ticket)
  for _, group in ipairs(groups) do
    local at = string.find(group.entries, ticket, 1, true)
    while at and (at - 1) % ENTRY_BYTES ~= 0 do at = string.find(group.entries, ticket, at + 1, true) end
    if at then
      local nth = (at - 1) / ENTRY_BYTES + 1
      return group, nth, apart(group.numbers[nth])
    end
  end
end

local function put(group, nth, state, moment)
  local number, at = state * STATE + moment, (nth - 1) * ENTRY_BYTES
  group.entries = string.sub(group.entries, 1, at + TICKET_BYTES)
    .. struct.pack(NUMBER, number) .. string.sub(group.entries, at + ENTRY_BYTES + 1)
  group.numbers[nth] = number
end

local function remove(group, nth)
  local at = (nth - 1) * ENTRY_BYTES
  group.entries = string.sub(group.entries, 1, at) .. string.sub(group.entries, at + ENTRY_BYTES + 1)
  table.remove(group.numbers, nth)
end

local function count_on(tally, name, moments)
  local lists = tally[name]
  if lists then lists[#lists + 1] = moments else tally[name] = { moments } end
end

-- The moments by key, in lists that groups share, and how many tickets are open: these count in every window, as if of now.
local function tally_of(groups, hides, now)
  local tally, opened = {}, 0
  for name, moment in pairs(hides) do tally[name] = { { moment } } end
  for _, group in ipairs(groups) do
    local counted, numbers = {}, group.numbers
    for nth = 1, #numbers do
      local number = numbers[nth]
      if number < STATE then  -- reserved, as most are: without a call
        if now <= number + GRACE_MS then
          opened = opened + 1
          counted[#counted + 1] = now
        end
      elseif not lapsed(number, now) then
        local state, moment = apart(number)
        if open(state, moment, now) then
          opened = opened + 1
          counted[#counted + 1] = now
        elseif state ~= REFUSED then
          counted[#counted + 1] = moment
        end
      end
    end
    if #counted > 0 then
      for _, name in ipairs(group.names) do count_on(tally, name, counted) end
      count_on(tally, ALL, counted)
      count_on(tally, PACE, counted)
    end
  end
  return tally, opened
end

-- No further than to `most`.
local function count(tally, name, most, window, now)
  local after, found = now - window, 0
  for _, moments in ipairs(tally[name] or {}) do
    for nth = 1, #moments do
      if moments[nth] > after then
        found = found + 1
        if found == most then return found end
      end
    end
  end
  return found
end

local function broken_rule(tally, rules, now)
  for nth = 1, #rules, 3 do
    local name, most = rules[nth], rules[nth + 1]
    if tally[name] and count(tally, name, most, rules[nth + 2], now) >= most then return nth end
  end
end

-- What a decision may know of a viewer: of each group with confirmed impressions of late the size of its keys, how many, the keys.
local function seen_of(groups, now)
  local parts, after, before = {}, CONFIRMED * STATE + now - EXPOSURE_MS, DOUBTED * STATE
  for _, group in ipairs(groups) do
    local exposures, numbers = 0, group.numbers
    for nth = 1, #numbers do
      if numbers[nth] > after and numbers[nth] < before then exposures = exposures + 1 end
    end
    if exposures > 0 then parts[#parts + 1] = struct.pack('>I2I2', #group.keys, exposures) .. group.keys end
  end
  return table.concat(parts)
end

-- The answer that the request got before, if there is one.
local function earlier_of(key, now)
  local remembered = key and redis.call('GET', key)
  if not remembered then return false end
  local until_ms, digest, grant, memo = cmsgpack.unpack(remembered)
  return until_ms >= now and { digest, grant, memo }
end

local function recall(keys, args)
  local now = tonumber(args[3])
  return { seen_of(read(redis.call('GET', keys[1])), now), earlier_of(keys[2], now) }
end

-- Of the memo, which is a head and a part for each candidate, what belongs to the grant.
local function remember(key, args, now, grant)
  local expires, digest, head = tonumber(args[4]), args[9], 10
  local kept = { args[head] }
  for nth = 1, #grant[1] do kept[nth + 1] = args[head + 1 + string.byte(grant[1], nth)] end
  if grant[2] >= 0 then kept[#kept + 1] = args[head + 1 + grant[2]] end
  redis.call('SET', key, cmsgpack.pack(expires, digest, grant, kept), 'PX', math.max(expires - now, 0) + GRACE_MS)
end

-- Answers places in the ranked list as bytes, the runner-up's or -1, and of each that is capped its place and the rule. Where the viewer's
-- past is not what the decision took it for, or the request was answered meanwhile, nothing is reserved, and `recall` is answered.
local function reserve(keys, args)
  local now, expires, whole, tickets, ranked = tonumber(args[3]), tonumber(args[4]), args[5], args[6], args[7]
  local groups, hides = read(redis.call('GET', keys[1]))
  local earlier, assumed = earlier_of(keys[2], now), args[8]
  if earlier or (assumed ~= UNKNOWN and assumed ~= seen_of(groups, now)) then
    return { false, seen_of(groups, now), earlier }
  end
  local tally, opened = tally_of(groups, hides, now)
  local wanted = #tickets / TICKET_BYTES
  local grant = { '', -1 }
  if opened + wanted > OPEN_MAX or overfull(groups, wanted, now) then return grant end
  local reserved, counted_now, last = {}, { now }, nil
  local place, offset = 0, #ranked > 0 and 0 or -1
  while offset ~= -1 do
    local candidate
    offset, candidate = cmsgpack.unpack_one(ranked, offset)
    local full = #reserved == wanted
    if not full or (last and candidate[1] == last[1] and candidate[2] ~= last[2]) then
      local rules = candidate[4]
      local broken = broken_rule(tally, rules, now)
      if broken then
        grant[#grant + 1] = place
        for nth = broken, broken + 2 do grant[#grant + 1] = rules[nth] end
      elseif not full then
        candidate.place, last = place, candidate
        reserved[#reserved + 1] = candidate
        for _, name in ipairs(cmsgpack.unpack(candidate[3])) do count_on(tally, name, counted_now) end
        count_on(tally, ALL, counted_now)
      else
        grant[2] = place
        break
      end
    end
    place = place + 1
  end
  if whole == '1' then
    local priced = grant[2] >= 0 or (last and last[1] == GUARANTEED)
    if #reserved < wanted or not priced then
      grant[2] = -1
      return grant
    end
  end
  if #reserved > 0 then
    local places = {}
    for nth, candidate in ipairs(reserved) do
      places[nth] = string.char(candidate.place)
      add(groups, candidate[3], string.sub(tickets, (nth - 1) * TICKET_BYTES + 1, nth * TICKET_BYTES), RESERVED, expires)
    end
    grant[1] = table.concat(places)
    write(keys[1], groups, hides, now)
    if keys[2] then remember(keys[2], args, now, grant) end
  end
  return grant
end

local function usage(keys, args)
  local now, asked, answer = tonumber(args[3]), cmsgpack.unpack(args[4]), {}
  local groups, hides = read(redis.call('GET', keys[1]))
  local tally = tally_of(groups, hides, now)
  for nth = 1, #asked, 2 do answer[#answer + 1] = count(tally, asked[nth], nil, asked[nth + 1], now) end
  return answer
end

-- The most entries in any half-open window that contains `at`, itself included.
local function most_together(moments, at, window)
  local most = 0
  local function start(first)
    local together = 1
    for _, moment in ipairs(moments) do
      if first <= moment and moment < first + window then together = together + 1 end
    end
    most = math.max(most, together)
  end
  start(at)
  for _, moment in ipairs(moments) do
    if moment <= at then start(moment) end
  end
  return most
end

-- Whether one more entry at `at` keeps every window that contains it within its rule.
local function fits_around(groups, at, rules, now)
  for nth = 1, #rules, 3 do
    local name, most, window = rules[nth], rules[nth + 1], rules[nth + 2]
    local opened, near = 0, {}
    for _, group in ipairs(groups) do
      local counts = name == ALL
      for _, other in ipairs(group.names) do counts = counts or other == name end
      for _, number in ipairs(counts and group.numbers or {}) do
        local state, moment = apart(number)
        if state == REFUSED or lapsed(number, now) then
          -- counts nowhere
        elseif open(state, moment, now) or (state == DOUBTED and at <= moment) then  -- it may lie anywhere
          opened = opened + 1
        elseif math.abs(moment - at) < window then
          near[#near + 1] = moment
        end
      end
    end
    if opened + most_together(near, at, window) > most then return false end
  end
  return true
end

-- Whether the ticket's impression counts, and what a decision may know of the viewer after it.
-- As a reservation lives and dies with its epoch, one that is here was counted all along.
local function confirm(keys, args)
  local now, at, ticket = tonumber(args[3]), tonumber(args[4]), args[5]
  local groups, hides = read(redis.call('GET', keys[1]))
  local group, nth, state, moment = find(groups, ticket)
  if state == REFUSED then return { 0, seen_of(groups, now) } end
  if not group and overfull(groups, 1, now) then return { 0, seen_of(groups, now) } end
  local known = state == CONFIRMED or state == DOUBTED
  if known and at >= moment then return { 1, seen_of(groups, now) } end
  if state == RESERVED and open(state, moment, now) then
    put(group, nth, CONFIRMED, at)
    state = CONFIRMED
  else
    if group then remove(group, nth) end
    local fits = fits_around(groups, at, cmsgpack.unpack(args[7]), now)
    if known and not fits then return { 0, UNKNOWN } end
    state = known and DOUBTED or fits and CONFIRMED or REFUSED
    add(groups, args[6], ticket, state, at)
  end
  write(keys[1], groups, hides, now)
  return { state == REFUSED and 0 or 1, seen_of(groups, now) }
end

local function doubt(keys, args)
  local groups, hides = read(redis.call('GET', keys[1]))
  local group, nth, state, moment = find(groups, args[4])
  local until_ms = tonumber(args[3])
  if (state == CONFIRMED or state == DOUBTED) and moment ~= until_ms then
    put(group, nth, DOUBTED, until_ms)
    write(keys[1], groups, hides, moment)  -- or somewhat later: nothing lapses too early
  end
  return 1
end

local function release(keys, args)
  local now = tonumber(args[3])
  local groups, hides = read(redis.call('GET', keys[1]))
  local group, nth, state = find(groups, args[4])
  if state ~= RESERVED or lapsed(group.numbers[nth], now) then return 0 end
  remove(group, nth)
  write(keys[1], groups, hides, now)
  return 1
end

-- What the event log holds of a viewer: hides as key and moment, entries as ticket, state, moment and keys. Its word is final.
local function restore(keys, args)
  local now, told = tonumber(args[3]), cmsgpack.unpack(args[4])
  local groups, hides = read(redis.call('GET', keys[1]))
  for nth = 1, #told[1], 2 do
    local name, moment = told[1][nth], told[1][nth + 1]
    hides[name] = math.max(moment, hides[name] or moment)
  end
  for nth = 1, #told[2], 4 do
    local ticket, state, moment, names = told[2][nth], told[2][nth + 1], told[2][nth + 2], told[2][nth + 3]
    local group, known, was = find(groups, ticket)
    if not group then
      add(groups, names, ticket, state, moment)
    elseif was == RESERVED or was == DOUBTED or was == REFUSED and state == CONFIRMED then
      put(group, known, state, moment)
    end
  end
  write(keys[1], groups, hides, now)
  return 1
end

-- Viewers of whom nothing is here: the key of each, its value and how long it is kept.
local function fill(_, args)
  for nth = 3, #args, 3 do redis.call('SET', args[nth], args[nth + 1], 'PX', args[nth + 2]) end
  return (#args - 2) / 3
end

-- Of an epoch that is over: what is not in the event log, as reservations are not, would count for ever.
local function forget(_, args)
  for nth = 3, #args do redis.call('UNLINK', args[nth]) end
  return #args - 2
end

-- Gives the node another token, if it still has the one that is named: it would not after a loss.
local function entrust(_, args)
  redis.call('SET', args[1], args[3])
  return 1
end

local function erase(keys, args)
  redis.call('DEL', unpack(keys))
  return #keys
end

-- Hides as key and moment, and the entries as keys, state and moment.
local function held(keys, args)
  local groups, hides = read(redis.call('GET', keys[1]))
  local told = { {}, {} }
  for name, moment in pairs(hides) do
    told[1][#told[1] + 1], told[1][#told[1] + 2] = name, moment
  end
  for _, group in ipairs(groups) do
    for _, number in ipairs(group.numbers) do
      local at, state, moment = #told[2], apart(number)
      told[2][at + 1], told[2][at + 2], told[2][at + 3] = group.names, state, moment
    end
  end
  return told
end

local function register(name, run)
  redis.register_function{
    function_name = '${library}_' .. name,
    callback = function(keys, args)
      if redis.call('GET', args[1]) ~= args[2] then return redis.error_reply('EPOCH another epoch, or none') end
      return run(keys, args)
    end,
    flags = { 'allow-cross-slot-keys' },  -- the token's key is the node's own, not the viewer's
  }
end

register('recall', recall)
register('reserve', reserve)
register('usage', usage)
register('confirm', confirm)
register('doubt', doubt)
register('release', release)
register('restore', restore)
register('fill', fill)
register('forget', forget)
register('entrust', entrust)
register('erase', erase)
register('held', held)
