// The official Socket.IO client under remote control: one JSON command a line in, one JSON line out per thing that
// happened. tests/clients/js_client.py drives it.
import { createInterface } from "node:readline";
import { io } from "socket.io-client";

const out = (line) => process.stdout.write(JSON.stringify(line) + "\n");
let socket;

const commands = {
  connect({ url, options }) {
    socket = io(url, { reconnectionDelay: 50, reconnectionDelayMax: 200, forceNew: true, ...options });
    socket.on("connect", () =>
      out({ is: "connect", id: socket.id, recovered: Boolean(socket.recovered), transport: socket.io.engine.transport.name }),
    );
    socket.on("disconnect", (reason) => out({ is: "disconnect", reason }));
    socket.on("connect_error", (error) =>
      out({ is: "connect_error", message: error.message, data: error.data ?? null, active: socket.active }),
    );
    socket.onAny((name, ...args) => out({ is: "event", name, args }));
    socket.io.engine.once("upgrade", (transport) => out({ is: "upgrade", transport: transport.name }));
  },
  async call({ name, args, id }) {
    try {
      out({ is: "answer", id, answer: await socket.timeout(10000).emitWithAck(name, ...args) });
    } catch (error) {
      out({ is: "answer", id, failed: String(error) });
    }
  },
  // Where the next reconnect goes to, as behind a load balancer.
  move({ url }) {
    socket.io.uri = url;
  },
  // As when the network breaks: no close is said to anybody.
  cut() {
    const { transport } = socket.io.engine;
    if (transport.ws) transport.ws.terminate();
    else socket.io.engine.close();
  },
  // A packet that the library itself would not send.
  forge({ packet }) {
    socket.io.engine.send(packet);
  },
  auth({ auth }) {
    socket.auth = auth;
  },
  reconnect() {
    socket.connect();
  },
  disconnect() {
    socket.disconnect();
  },
};

createInterface({ input: process.stdin }).on("line", (line) => {
  const { do: name, ...rest } = JSON.parse(line);
  commands[name](rest);
}).on("close", () => process.exit(0));
out({ is: "ready" });
