// The agent's OpenAI-compatible API, as the page needs it.

/** An answer that did not come; `message` is the server's own sentence. */
export class ApiError extends Error {}

const SILENT = "The agent does not answer. Is it still running on this device?";

/** The model that the agent serves: {id, meta}. */
export async function model() {
  const response = await reach("v1/models", {});
  const listing = await response.json();
  if (!listing.data?.length) throw new ApiError("The agent has no model.");
  return listing.data[0];
}

/**
 * Streams an answer. `onText(text)` is called for every piece; resolves to {finish, timings, usage}.
 * Aborting `signal` closes the connection, which stops the generation on the device.
 */
export async function chat(request, { signal, onText }) {
  const response = await reach("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  const end = { finish: null, timings: null, usage: null };
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return end;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(chunk.error.message);
    const choice = chunk.choices[0];
    if (choice?.delta.content) onText(choice.delta.content);
    end.finish = choice?.finish_reason ?? end.finish;
    end.timings = chunk.timings ?? end.timings;
    end.usage = chunk.usage ?? end.usage;
  }
  throw new ApiError("The connection ended before the answer did.");
}

async function reach(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(SILENT);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  throw new ApiError(body?.error?.message ?? `The agent answered with status ${response.status}.`);
}

/** Data of server-sent events; comments, which keep the connection alive, are skipped. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) if (block.startsWith("data: ")) yield block.slice(6);
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(SILENT);
  } finally {
    reader.cancel().catch(() => {});
  }
}
