// What the page asks its server. No key of the service is known here.

async function ask(method, path, body) {
  const answer = await fetch(`/demo/api/${path}`, {
    method,
    keepalive: path === "release", // sent also as the page goes
    headers: body ? { "Content-Type": "application/json" } : {},
    body: body && JSON.stringify(body),
  });
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(content.detail ?? content.title ?? `${method} ${path}: ${answer.status}`);
  return content;
}

export const api = {
  feed: (viewer) => ask("POST", "feed", viewer),
  release: (tickets) => ask("POST", "release", { tickets }),
  decision: (id) => ask("GET", `decisions/${id}`),
  sample: () => ask("GET", "viewers"),
  rollout: () => ask("GET", "rollout"),
  setPercent: (percent) => ask("PUT", "rollout", { percent }),
  pause: () => ask("POST", "pause", {}),
  startRamp: () => ask("POST", "ramp", {}),
  endRamp: () => ask("POST", "ramp/end", {}),
  plantHarm: (harm) => ask("POST", "harm", { harm }),
  resume: () => ask("POST", "resume", {}),
};

/** Calls `listener` with the whole state whenever it changes, and `state` as the connection comes and goes. */
export function follow(listener, state) {
  const source = new EventSource("/demo/api/live");
  source.addEventListener("open", () => state(true));
  source.addEventListener("error", () => state(false));
  source.addEventListener("message", ({ data }) => listener(JSON.parse(data)));
}
