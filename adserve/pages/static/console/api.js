// What the console asks its server, in the name of the session that its cookie stands for.

export class Refused extends Error {
  /** `fields` are [field, reason] pairs of what was wrong with a body. */
  constructor(status, message, fields) {
    super(message);
    this.status = status;
    this.fields = fields;
  }
}

const UNREACHABLE = "The service does not answer.";

async function ask(method, path, body) {
  const headers = { "X-Adserve-Console": "1" };
  if (body) headers["Content-Type"] = "application/json";
  const sent = { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(8_000) };
  const answer = await fetch(`/console/${path}`, sent).catch(() => {
    throw new Refused(0, UNREACHABLE, []);
  });
  const content = answer.status === 204 ? null : await answer.json().catch(() => ({}));
  if (answer.ok) return content;
  const said = answer.status === 503 ? "The database does not answer at the moment." : content.detail || content.title;
  throw new Refused(answer.status, said || `${answer.status} from ${path}`, (content.errors ?? []).map(({ field, reason }) => [field, reason]));
}

/** All items of a list that comes in pages. */
async function all(path) {
  const items = [];
  let page = { next: null };
  do {
    page = await ask("GET", page.next ? `${path}&after=${page.next}` : path);
    items.push(...page.items);
  } while (page.next);
  return items;
}

export const api = {
  signIn: (key) => ask("POST", "session", { key }),
  signOut: () => ask("DELETE", "session"),
  rollout: () => ask("GET", "api/rollout"),
  switch: () => ask("GET", "api/rollout/switch"),
  pause: () => ask("POST", "api/rollout/pause"),
  resume: () => ask("POST", "api/rollout/resume"),
  plans: (active) => all(`api/ramps?active=${active}&limit=200`),
  plan: (id) => ask("GET", `api/ramps/${id}`),
  looks: (id) => ask("GET", `api/ramps/${id}/looks?points=300`),
  history: (id) => all(`api/ramps/${id}/history?limit=200`),
  create: (plan) => ask("POST", "api/ramps", plan),
  reviews: () => ask("GET", "api/reviews?limit=50"),
  judge: (id, act, body) => ask("POST", `api/reviews/${id}/${act}`, body),
  act: (id, act, body) => ask("POST", `api/ramps/${id}/${act}`, body),
};
