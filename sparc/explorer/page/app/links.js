// Links: the fragment holds the view and all that the reader chose there, so that each page can be sent to somebody.
//   #/latents?q=cat&sort=rate    #/latent/93    #/compare?a=clip&b=dino    #/sample/7    #/bias?a=woman&b=nurse
"use strict";
const Links = (() => {
  const to = (path, parameters = {}) => {
    const kept = Object.entries(parameters).filter(
      ([, value]) => value !== null && value !== undefined && value !== "",
    );
    return `#/${path}${kept.length ? `?${new URLSearchParams(kept)}` : ""}`;
  };
  const read = (fragment = location.hash) => {
    const [path, query = ""] = fragment.replace(/^#\/?/, "").split(/\?(.*)/s);
    const [view = "", id = null] = path.split("/");
    return { view: view || "latents", id, parameters: Object.fromEntries(new URLSearchParams(query)) };
  };
  // Keeps what the reader chose in the address without a step in the history for each key.
  const keep = (path, parameters) => history.replaceState(history.state, "", to(path, parameters));
  return { to, read, keep };
})();
