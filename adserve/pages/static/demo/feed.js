// Turns a spliced feed into what the player plays. Feeds and ads come from outside: an item that names
// anything but our own paths is left out.

const MEDIA_PATHS = ["/media/", "/demo/art/"];
const EVENT_PATHS = ["/i.gif", "/e.gif", "/r"];

/** The path of a URL of ours, or null. Answers carry absolute URLs; only their path counts here. */
function ownPath(url, allowed) {
  if (typeof url !== "string") return null;
  try {
    const { protocol, pathname, search } = new URL(url, location.origin);
    if (protocol !== "http:" && protocol !== "https:") return null;
    return allowed(pathname) ? pathname + search : null;
  } catch {
    return null;
  }
}

const mediaPath = (url) => ownPath(url, (path) => MEDIA_PATHS.some((start) => path.startsWith(start)));
const eventPath = (url) => ownPath(url, (path) => EVENT_PATHS.includes(path));

function decodeAd({ ad, position, ticket, urls }, index) {
  const { creative, advertiser } = ad;
  const paths = Object.fromEntries(
    ["impression", "click", "hide", "report"].map((kind) => [kind, eventPath(urls[kind])]),
  );
  const media = mediaPath(creative.media_url);
  if (!media || !Object.values(paths).every(Boolean)) return null;
  return {
    kind: "ad", id: ad.id, position, ticket, media, paths, run: `ad-${index}`,
    advertiser: advertiser.id, name: advertiser.name, campaign: ad.campaign,
    headline: creative.headline, body: creative.body, action: creative.call_to_action,
  };
}

function decodeStatus(item, index, authors) {
  const author = authors[item.author] ?? { name: "Somebody", hue: 0 };
  const media = item.kind === "image" ? mediaPath(item.media) : null;
  if (item.kind === "image" && !media) return null;
  return {
    kind: item.kind === "image" ? "image" : "text", media, run: item.author, name: author.name,
    hue: Number(author.hue) || 0, caption: String(item.caption ?? ""), tone: item.tone, ageMin: Number(item.age_min) || 0,
  };
}

export function decodeFeed({ items, authors = {} }) {
  return items
    .map((item, index) => (item.type === "ad" ? decodeAd(item, index) : decodeStatus(item, index, authors)))
    .filter(Boolean);
}

/** The stretch [first, last] of one author's statuses around `at`: what the segments on top count. */
export function runAround(items, at) {
  let first = at;
  let last = at;
  while (first > 0 && items[first - 1].run === items[at].run) first -= 1;
  while (last + 1 < items.length && items[last + 1].run === items[at].run) last += 1;
  return [first, last];
}
