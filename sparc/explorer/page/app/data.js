// The site's data: each file is one call of sparcData(name, value), loaded as a script when it is needed.
"use strict";
const Data = (() => {
  const chunksKept = 4; // a chunk of samples may take some megabytes
  const loaded = new Map(); // name -> promise of its value; chunks in order of use
  const waiting = new Map(); // name -> resolve

  window.sparcData = (name, value) => {
    waiting.get(name)?.(value);
    waiting.delete(name);
  };

  const request = (name) =>
    new Promise((resolve, reject) => {
      const script = document.createElement("script");
      const file = `data/${name.replace("/", "-")}.js`;
      waiting.set(name, resolve);
      script.src = file;
      script.onload = () => script.remove();
      script.onerror = () => {
        script.remove();
        waiting.delete(name);
        loaded.delete(name);
        reject(new Error(`The file ${file} is missing from this folder. Write the page again with "sparc explore".`));
      };
      document.head.append(script);
    });

  const load = (name) => {
    const promise = loaded.get(name) ?? request(name);
    loaded.delete(name);
    loaded.set(name, promise);
    const chunks = [...loaded.keys()].filter((key) => key.includes("/"));
    chunks.slice(0, Math.max(0, chunks.length - chunksKept)).forEach((key) => loaded.delete(key));
    return promise;
  };

  // Loads a file that only the caller keeps, so that its memory is free once the caller has gone.
  const loadOnce = async (name) => {
    const value = await load(name);
    loaded.delete(name);
    return value;
  };

  return { load, loadOnce };
})();
