// Requests to the server. The token came in the fragment of the address and goes in a header.

const KEY = "llmstages-token";

export function takeToken() {
  const match = /(?:^#|&)token=([^&]+)/.exec(location.hash);
  if (!match) return;
  localStorage.setItem(KEY, match[1]);
  history.replaceState(null, "", location.pathname + "#/");
}

async function request(path, options = {}) {
  const headers = {Authorization: `Bearer ${localStorage.getItem(KEY) ?? ""}`};
  if (options.body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(path, {
    method: options.body === undefined ? "GET" : "POST",
    headers,
    body: options.body === undefined ? undefined : JSON.stringify(options.body),
    signal: options.signal,
  });
  if (!response.ok) throw new Error(await reason(response));
  return response;
}

async function reason(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `${response.status} ${response.statusText}`;
  }
}

export async function get(path, signal) {
  return (await request(path, {signal})).json();
}

export async function post(path, body, signal) {
  return (await request(path, {body, signal})).json();
}

// Objects of a stream of JSON lines, as they arrive. Aborting the signal stops the server too.
export async function* stream(path, body, signal) {
  const response = await request(path, {body, signal});
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  while (true) {
    const {value, done} = await reader.read();
    if (done) break;
    rest += value;
    const lines = rest.split("\n");
    rest = lines.pop();
    for (const line of lines) yield checked(JSON.parse(line));
  }
}

function checked(event) {
  if (event.error) throw new Error(event.error);
  return event;
}
