// virtual-core is released as CommonJS: both of its files fill this one object.
"use strict";
const VirtualCore = {};
window.exports = VirtualCore;
window.require = () => VirtualCore;
window.process = { env: { NODE_ENV: "production" } };
