// SPDX-License-Identifier: Apache-2.0
// Draws the packed points of one scan. Drag turns, Shift and drag (or the right button) shifts, the wheel zooms.
for (const box of document.querySelectorAll(".scan3d")) {
  const canvas = box.querySelector("canvas"), gl = canvas.getContext("webgl", {preserveDrawingBuffer: true});
  if (!gl) { box.querySelector("p").textContent = "This browser does not draw in three dimensions (WebGL)."; continue; }
  const raw = Uint8Array.from(atob(box.querySelector("script").textContent.trim()), c => c.charCodeAt(0));
  const view = new DataView(raw.buffer), count = raw.length / 10, palette = JSON.parse(box.dataset.palette);
  const place = new Float32Array(3 * count), color = new Uint8Array(3 * count);
  for (let i = 0; i < count; i++) for (let k = 0; k < 3; k++) place[3 * i + k] = view.getInt16(10 * i + 2 * k, true) * 0.005;
  const looks = {
    predicted: i => palette[raw[10 * i + 6]],
    truth: i => palette[raw[10 * i + 7]],
    errors: i => !raw[10 * i + 7] ? [90, 90, 90] : raw[10 * i + 6] === raw[10 * i + 7] ? [70, 140, 110] : [230, 60, 50],
    uncertainty: i => { const u = raw[10 * i + 8] / 255; return [56 + 189 * u, 62 + 108 * u, 120 - 100 * u]; },
    height: i => { const h = raw[10 * i + 9] / 255; return [60 + 190 * h, 80 + 160 * h, 150]; },
  };
  const shader = (kind, source) => { const s = gl.createShader(kind); gl.shaderSource(s, source); gl.compileShader(s); return s; };
  const program = gl.createProgram();
  gl.attachShader(program, shader(gl.VERTEX_SHADER, `attribute vec3 place; attribute vec3 color; uniform mat4 camera;
    uniform float size; varying vec3 shade;
    void main() { gl_Position = camera * vec4(place, 1.0); gl_PointSize = clamp(size / gl_Position.w, 1.5, 9.0); shade = color; }`));
  gl.attachShader(program, shader(gl.FRAGMENT_SHADER, `precision mediump float; varying vec3 shade;
    void main() { gl_FragColor = vec4(shade, 1.0); }`));
  gl.linkProgram(program); gl.useProgram(program); gl.enable(gl.DEPTH_TEST);
  const feed = (name, data, kind, normal) => {
    const at = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer()); gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(at); gl.vertexAttribPointer(at, 3, kind, normal, 0, 0);
  };
  feed("place", place, gl.FLOAT, false);
  let turn = Math.PI, tilt = 0.55, away = 38, middle = [6, 0, 0];
  const draw = () => {
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth * ratio, height = canvas.clientHeight * ratio;
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0.08, 0.09, 0.1, 1); gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const [ct, st, cu, su] = [Math.cos(tilt), Math.sin(tilt), Math.cos(turn), Math.sin(turn)];
    const back = [ct * cu, ct * su, st], right = [-su, cu, 0], up = [-st * cu, -st * su, ct];
    const eye = middle.map((m, k) => m + away * back[k]), dot = a => a[0] * eye[0] + a[1] * eye[1] + a[2] * eye[2];
    const f = 1.6, x = f * canvas.height / canvas.width, near = 0.3, far = 600, a = (far + near) / (near - far), b = 2 * far * near / (near - far);
    gl.uniformMatrix4fv(gl.getUniformLocation(program, "camera"), false, [
      x * right[0], f * up[0], a * back[0], -back[0], x * right[1], f * up[1], a * back[1], -back[1],
      x * right[2], f * up[2], a * back[2], -back[2], -x * dot(right), -f * dot(up), -a * dot(back) + b, dot(back)]);
    gl.uniform1f(gl.getUniformLocation(program, "size"), 55 * ratio);
    gl.drawArrays(gl.POINTS, 0, count);
  };
  const show = name => {
    for (let i = 0; i < count; i++) color.set(looks[name](i), 3 * i);
    feed("color", color, gl.UNSIGNED_BYTE, true);
    for (const button of box.querySelectorAll("button")) button.setAttribute("aria-pressed", button.dataset.look === name);
    draw();
  };
  for (const button of box.querySelectorAll("button")) button.onclick = () => show(button.dataset.look);
  canvas.oncontextmenu = event => event.preventDefault();
  canvas.onpointerdown = event => canvas.setPointerCapture(event.pointerId);
  canvas.onpointermove = event => {
    if (!event.buttons) return;
    if (event.buttons === 2 || event.shiftKey) {
      const step = away / 500;
      middle[0] += step * (event.movementX * Math.sin(turn) - event.movementY * Math.cos(turn));
      middle[1] -= step * (event.movementX * Math.cos(turn) + event.movementY * Math.sin(turn));
    } else { turn -= event.movementX / 200; tilt = Math.min(1.55, Math.max(-0.2, tilt + event.movementY / 200)); }
    draw();
  };
  canvas.addEventListener("wheel", event => { event.preventDefault(); away = Math.min(300, Math.max(2, away * Math.exp(event.deltaY / 600))); draw(); }, {passive: false});
  window.addEventListener("resize", draw);
  show(box.querySelector("button").dataset.look);
}
