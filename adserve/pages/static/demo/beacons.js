// Tells adserve what happened to an ad, each thing once.

const told = new Set();

function once(ad, kind, send) {
  const key = `${ad.ticket} ${kind}`;
  if (told.has(key)) return;
  told.add(key);
  send().catch(() => told.delete(key));
}

async function post(path, init = {}) {
  const answer = await fetch(path, { method: "POST", keepalive: true, ...init });
  if (!answer.ok) throw new Error(`${answer.status}`);
}

export const beacon = (ad, kind) => once(ad, kind, () => post(ad.paths[kind]));

export const viewed = (ad, viewMs) =>
  once(ad, "view", () =>
    post("/demo/api/events", {
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ticket: ad.ticket, kind: "view", view_ms: viewMs }),
    }),
  );
