// Video by WebRTC: a connection that lasts as long as the WebSocket over which it was agreed on.

const PATIENCE = 30000;
const GATHERING = 500;

// video: the element that plays; handlers: playing(), refused(reason), and lost() when the server has gone. Returns what
// ends the connection.
export function watchVideo(video, handlers) {
  const url = new URL("video", location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.search = "";
  const socket = new WebSocket(url);
  let connection = null;
  let over = false;

  function end(tell) {
    if (over) return;
    over = true;
    clearTimeout(timer);
    video.onloadeddata = null;
    video.srcObject = null;
    connection?.close();
    socket.close();
    tell?.();
  }

  const refuse = (reason) => end(() => handlers.refused(reason));
  const timer = setTimeout(() => refuse(`no picture came within ${PATIENCE / 1000} s; UDP has to pass between browser and camera`), PATIENCE);

  async function answer(sdp) {
    connection = new RTCPeerConnection();
    connection.ontrack = ({ track, receiver }) => {
      // Without this a browser keeps pictures back until they come evenly.
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      else if ("playoutDelayHint" in receiver) receiver.playoutDelayHint = 0;
      video.srcObject = new MediaStream([track]);
    };
    video.onloadeddata = () => {
      clearTimeout(timer);
      handlers.playing();
    };
    await connection.setRemoteDescription({ type: "offer", sdp });
    await connection.setLocalDescription(await connection.createAnswer());
    // The server is reached under the addresses of its offer; those of the browser only make it quicker.
    if (connection.iceGatheringState !== "complete") {
      await new Promise((done) => {
        setTimeout(done, GATHERING);
        connection.onicegatheringstatechange = () => connection.iceGatheringState === "complete" && done();
      });
    }
    const text = connection.localDescription.sdp;
    if (/^m=video 0 /m.test(text)) return refuse("this browser does not decode the camera's codec");
    socket.send(JSON.stringify({ sdp: text }));
  }

  socket.onmessage = ({ data }) => {
    const { kind, sdp, reason } = JSON.parse(data);
    if (kind === "offer") answer(sdp).catch((error) => refuse(String(error.message ?? error)));
    else if (kind === "refused") refuse(reason);
  };
  socket.onclose = () => end(handlers.lost);
  return () => end();
}
