// Asks the server. Every failure is one line that the page can show.

async function answer(response) {
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new Error(body?.error ?? `the server answered ${response.status}`);
  return body;
}

async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the viewer's server does not answer; start it again: stpath-assets view");
  }
}

export async function ask(path, question = {}, signal = undefined) {
  const query = new URLSearchParams(question).toString();
  return answer(await reach(query ? `${path}?${query}` : path, { signal }));
}

export async function save(path, body) {
  const headers = { "content-type": "application/json" };
  return answer(await reach(path, { method: "PUT", headers, body: JSON.stringify(body) }));
}

export const slidePath = (id) => `/api/slides/${encodeURIComponent(id)}`;
