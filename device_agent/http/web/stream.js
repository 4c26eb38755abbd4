// Server-sent events out of a byte stream (WHATWG HTML, section 9.2), however the network cut it.

/** Longer lines are no events of ours: a broken server must not fill the browser's memory. */
const LONGEST = 4_000_000;

/** Yields the data of each event; comments, which keep a connection alive, are skipped. */
export async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      // A CR at the very end may be the first half of CR LF: it waits for what follows.
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      if (rest.length > LONGEST) throw new RangeError("The answer has a line that never ends.");
      for (const line of lines) {
        if (line) data.push(...field(line));
        else if (data.length) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function field(line) {
  if (!line.startsWith("data:")) return [];
  return [line.slice(line[5] === " " ? 6 : 5)];
}
