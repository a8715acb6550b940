// The backend of a chat: it knows who somebody is, what each may read and write,
// and nothing of streams. Caddy asks it once for each stream (GET /auth), and it
// tells Caddy what there is to send, with one request a message.
import { randomBytes, randomUUID } from "node:crypto";
import { createServer, STATUS_CODES } from "node:http";

const port = Number(process.env.PORT ?? 3000);
const hub = process.env.HUB ?? "http://127.0.0.1:2019/sse"; // Caddy's admin endpoint

const SESSION = 12 * 60 * 60; // seconds
const MAX_BODY = 16 << 10; // bytes
const MAX_TEXT = 500; // characters

// A real app has these in its database, with hashes of the passwords.
const users = new Map(Object.entries({
  alice: { password: "apple", channels: ["team", "project-*"], lead: true },
  bob: { password: "banana", channels: ["team", "project-x"] },
  carol: { password: "cherry", channels: ["team"] },
  dave: { password: "date", channels: [] }, // a guest, who gets direct messages alone
}));
const rooms = ["team", "project-x", "project-y"];
const sessions = new Map(); // token → { name, until }

class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

const covers = (channel, room) => channel.endsWith("*") ? room.startsWith(channel.slice(0, -1)) : room === channel;
const roomsOf = (name) => rooms.filter((room) => users.get(name).channels.some((channel) => covers(channel, room)));
const others = (name) => [...users.keys()].filter((other) => other !== name);

const token = (req) => /(?:^|; )session=([\w-]+)/.exec(req.headers.cookie)?.[1];

// who decides by the cookie and nothing else: any other header is the client's.
function who(req) {
  const session = sessions.get(token(req));
  if (!session || session.until < Date.now()) throw new Problem(401, "Nobody is logged in.");
  return session.name;
}

function cookie(req, value, age) {
  const secure = req.headers["x-forwarded-proto"] === "https" ? "; Secure" : "";
  return { "Set-Cookie": `session=${value}; Path=/; Max-Age=${age}; HttpOnly; SameSite=Lax${secure}` };
}

const routes = {
  // Caddy reads the headers, and the page reads the body.
  "GET /auth": (req) => {
    const name = who(req);
    const { channels, lead } = users.get(name);
    const members = (room) => others(name).filter((other) => roomsOf(other).includes(room));
    return {
      headers: { "X-User": name, "X-Channels": channels.join(", ") },
      body: {
        user: name, at: Date.now(), channels, rooms: roomsOf(name), people: others(name),
        members: lead && Object.fromEntries(rooms.map((room) => [room, members(room)])),
      },
    };
  },

  "POST /login": (req, form) => {
    const name = form.get("user");
    if (!users.has(name) || users.get(name).password !== form.get("password")) {
      throw new Problem(401, "There is no such user, or the password is another.");
    }
    sessions.delete(token(req));
    const fresh = randomBytes(24).toString("base64url");
    sessions.set(fresh, { name, until: Date.now() + SESSION * 1000 });
    return { headers: cookie(req, fresh, SESSION) };
  },

  "POST /logout": async (req) => {
    const name = who(req);
    sessions.delete(token(req));
    // The session has ended, whatever becomes of the streams.
    await changed(name).catch(() => {});
    return { headers: cookie(req, "", 0) };
  },

  "POST /say": async (req, form) => {
    const name = who(req);
    const to = form.get("to") ?? "";
    const text = (form.get("text") ?? "").trim();
    const direct = others(name).some((other) => to === `user-${other}`);
    if (!direct && !roomsOf(name).includes(to)) throw new Problem(403, `You may not write to “${to}”.`);
    if (!text || text.length > MAX_TEXT) throw new Problem(400, `A message has 1 to ${MAX_TEXT} characters.`);
    // What is said to one person goes to the speaker too, whose other pages show it.
    await publish(direct ? [to, `user-${name}`] : [to], "say", { from: name, to, text, at: Date.now() });
  },

  "POST /members": async (req, form) => {
    const [name, room, member] = [form.get("user"), form.get("room"), form.get("member") === "true"];
    if (!users.get(who(req)).lead) throw new Problem(403, "Only who leads may do this.");
    if (!users.has(name) || !rooms.includes(room)) throw new Problem(400, "There is no such user or room.");
    const user = users.get(name);
    user.channels = user.channels.filter((channel) => channel !== room).concat(member ? room : []);
    await changed(name);
  },
};

// changed is for when somebody may read something else than before. Streams that
// are open go on as they were allowed, so it tells the user's pages to look again,
// and then has Caddy end all the user's streams, for those that do not. Browsers
// come back, and Caddy asks anew.
async function changed(name) {
  try {
    await publish([`user-${name}`], "changed", { at: Date.now() });
  } finally {
    await ask("DELETE", `/connections?user=${encodeURIComponent(name)}`);
  }
}

// publish may try again what was not answered: the id makes it happen once.
const publish = (channels, event, data) => ask("POST", "/publish", { channels, event, data, id: randomUUID() });

async function ask(method, path, body) {
  const request = {
    method,
    // Node's fetch looks like a browser's, so Caddy wants to know from where.
    headers: { "Content-Type": "application/json", Origin: new URL(hub).origin },
    body: body && JSON.stringify(body),
  };
  let failure;
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      const response = await fetch(hub + path, { ...request, signal: AbortSignal.timeout(5000) });
      const answer = (await response.text()).trim();
      if (response.ok) return;
      failure = `${response.status} ${answer}`;
      if (response.status < 500) break;
    } catch (error) {
      failure = error.cause?.message ?? error.message;
    }
  }
  console.error(`${method} ${hub}${path}: ${failure}`);
  throw new Problem(502, "Caddy did not do what it was asked. The backend has written why.");
}

async function readForm(req) {
  // SameSite=Lax lets other ports of this host through, and this does not.
  if ((req.headers["sec-fetch-site"] ?? "same-origin") !== "same-origin") {
    throw new Problem(403, "This came from a page of another origin.");
  }
  let text = "";
  for await (const chunk of req.setEncoding("utf8")) {
    if (text.length <= MAX_BODY) text += chunk;
  }
  if (text.length > MAX_BODY) throw new Problem(413, "This is too long.");
  return new URLSearchParams(text);
}

async function serve(req, res) {
  const write = (status, headers, body) => {
    res.writeHead(status, { "Cache-Control": "no-store", ...headers }).end(body && JSON.stringify(body));
  };
  try {
    const route = routes[`${req.method} ${req.url.split("?")[0]}`];
    if (!route) throw new Problem(404, "There is no such thing.");
    const { headers, body } = await route(req, req.method === "POST" && await readForm(req)) ?? {};
    write(body ? 200 : 204, { ...(body && { "Content-Type": "application/json" }), ...headers }, body);
  } catch (error) {
    const status = error.status ?? 500;
    if (!error.status) console.error(error);
    const detail = error.status ? error.message : "Something went wrong.";
    write(status, { "Content-Type": "application/problem+json" }, { status, title: STATUS_CODES[status], detail });
  }
}

const server = createServer(serve);
// Caddy keeps idle connections for two minutes. If they were closed here before
// that, a message could be sent into one that is just going.
server.keepAliveTimeout = 150_000;
server.listen(port, "127.0.0.1", () => console.log(`The backend is at http://127.0.0.1:${port}`));
