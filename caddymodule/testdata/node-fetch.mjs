// Reads the stream at the first argument with fetch, as programs do that want
// to send headers, and prints its lines as they arrive. The second argument, if
// there is one, is the Last-Event-ID.

const [url, lastEventID] = process.argv.slice(2);
const headers = { Accept: "text/event-stream" };
if (lastEventID) headers["Last-Event-ID"] = lastEventID;

const response = await fetch(url, { headers });
process.stdout.write(`status: ${response.status}\n`);
for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
  process.stdout.write(text);
}
process.stdout.write("end\n");
