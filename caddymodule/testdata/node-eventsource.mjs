// Opens Node's own EventSource (node --experimental-eventsource) on the first
// argument and prints what it fires as lines of JSON. The other arguments are
// the names of events to listen to. It ends when its standard input does.

const [url, ...names] = process.argv.slice(2);
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");

const source = new EventSource(url);
source.onopen = () => print({ type: "open" });
source.onerror = () => print({ type: "error", readyState: source.readyState });
source.onmessage = ({ data, lastEventId }) => print({ type: "onmessage", data, lastEventId });
for (const name of names) {
  source.addEventListener(name, ({ type, data, lastEventId }) => print({ type, data, lastEventId }));
}
process.stdin.on("end", () => process.exit(0)).resume();
