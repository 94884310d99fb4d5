// The WebSocket to the server: opened again whenever it breaks.

const SHORTEST_WAIT = 500;
const LONGEST_WAIT = 5000;
const IN_FLIGHT = 2;

// handlers: hello(facts), statistics(numbers), picture(message) and lost(). A picture is only sent after ready().
export function connect(handlers) {
  let socket = null;
  let wait = SHORTEST_WAIT;

  function open() {
    const url = new URL("live", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.search = "";
    socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      if (typeof data !== "string") return handlers.picture(parsed(data));
      const { kind, ...content } = JSON.parse(data);
      if (kind === "hello") {
        wait = SHORTEST_WAIT;
        handlers.hello(content);
        for (let i = 0; i < IN_FLIGHT; i++) ready();
      } else if (kind === "statistics") {
        handlers.statistics(content);
      }
    };
    socket.onclose = () => {
      handlers.lost();
      setTimeout(open, wait);
      wait = Math.min(LONGEST_WAIT, 2 * wait);
    };
  }

  function ready() {
    if (socket.readyState === WebSocket.OPEN) socket.send("next");
  }

  open();
  return ready;
}

// Length of the header, header, JPEG, pixels of the class map's PNG.
function parsed(buffer) {
  const length = new DataView(buffer).getUint32(0);
  const facts = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const start = 4 + length;
  return {
    number: facts.number,
    jpeg: new Blob([new Uint8Array(buffer, start, facts.jpeg)], { type: "image/jpeg" }),
    map: { width: facts.width, height: facts.height, pixels: new Uint8Array(buffer, start + facts.jpeg) },
  };
}
