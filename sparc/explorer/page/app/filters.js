// Which latents a page shows and in which order: pure functions of the link's parameters.
"use strict";
const Filters = (() => {
  const byNumber = (value) => (first, second) =>
    (value(second) ?? -Infinity) - (value(first) ?? -Infinity) || first - second;
  const column = (name) => (latent) => Dictionary.columns[name][latent];

  // A correlation over two samples tells nothing: latents that fire in fewer than five samples of some stream come last.
  const enough = 5;
  const support = (latent) =>
    Math.min(enough, Math.round(Dictionary.run.shown * Math.min(...Dictionary.rates.map((rates) => rates[latent]))));
  const bySupport = (value) => (first, second) => support(second) - support(first) || byNumber(value)(first, second);

  const frequency = (parameters) => {
    const stream = Dictionary.streams.indexOf(parameters.in);
    return stream >= 0 ? (latent) => Dictionary.rates[stream][latent] : Dictionary.meanRate;
  };

  const orders = {
    agreement: { label: "Streams agree most", compare: () => bySupport(column("agreement")) },
    disagreement: {
      label: "Streams agree least",
      compare: () =>
        bySupport((latent) =>
          Dictionary.columns.agreement[latent] === null ? null : -Dictionary.columns.agreement[latent],
        ),
    },
    frequent: { label: "Fires most often", compare: (parameters) => byNumber(frequency(parameters)) },
    rare: { label: "Fires most rarely", compare: (parameters) => byNumber((latent) => -frequency(parameters)(latent)) },
    purity: { label: "Purest", compare: () => byNumber(column("purity")) },
    sure: { label: "Best fitting name", compare: () => byNumber(column("sure")) },
    state: { label: "State", compare: () => byNumber((latent) => -Dictionary.columns.state[latent]) },
    name: {
      label: "Name A–Z",
      compare: () => (first, second) => {
        const [one, two] = [Dictionary.columns.name[first], Dictionary.columns.name[second]];
        if (one === null || two === null) return (one === null) - (two === null) || first - second;
        return one.localeCompare(two) || first - second;
      },
    },
    number: { label: "Number", compare: () => (first, second) => first - second },
  };

  const streamRules = (parameters) =>
    ["in", "not"]
      .filter((key) => Dictionary.streams.includes(parameters[key]))
      .map((key) => {
        const rates = Dictionary.rates[Dictionary.streams.indexOf(parameters[key])];
        return key === "in" ? (latent) => rates[latent] > 0 : (latent) => rates[latent] === 0;
      });

  const rules = (parameters) => {
    const { columns } = Dictionary;
    const states = parameters.state ? parameters.state.split(",") : ["shared", "some", "duplicate"];
    const found = [(latent) => states.includes(Dictionary.state(latent).name), ...streamRules(parameters)];
    const atLeast = (key, value) =>
      parameters[key] && found.push((latent) => value(latent) !== null && value(latent) >= Number(parameters[key]));
    atLeast("agreement", column("agreement"));
    atLeast("purity", column("purity"));
    atLeast("min", frequency(parameters));
    if (parameters.max) found.push((latent) => frequency(parameters)(latent) <= Number(parameters.max));
    if (parameters.branch)
      found.push((latent) => Dictionary.run.branches[columns.branch[latent]] === parameters.branch);
    if (parameters.named)
      found.push((latent) => columns.named_by[latent] === { label: 1, words: 2, none: 0 }[parameters.named]);
    if (parameters.label) found.push((latent) => columns.name[latent] === parameters.label);
    return found;
  };

  // The latents that pass, in the chosen order, or else the best first. `found` holds the search's answers, best first, or is null without a search.
  const apply = (parameters, found) => {
    const only = parameters.only
      ?.split(",")
      .map(Number)
      .filter((latent) => Number.isInteger(latent) && latent >= 0 && latent < Dictionary.size);
    const pool = found ?? only ?? Dictionary.tellingOrder();
    const wanted = only && found ? new Set(only) : null;
    const checks = rules(
      only && !parameters.state ? { ...parameters, state: "shared,some,duplicate,dead" } : parameters,
    );
    const kept = pool.filter((latent) => (!wanted || wanted.has(latent)) && checks.every((check) => check(latent)));
    const order = Object.hasOwn(orders, parameters.sort ?? "") ? orders[parameters.sort] : null;
    return order ? kept.sort(order.compare(parameters)) : kept;
  };

  // The order without a choice of the reader: of the search, of the list in the link, or else of how telling they are.
  const unsorted = (parameters) =>
    (parameters.q ?? "").trim() ? "Nearest to the search" : parameters.only ? "As listed" : "Best first";

  // A line on latents that an order puts last although their numbers would rank them higher; "" if it does to none of these.
  const last = (parameters, latents) => {
    if (!["agreement", "disagreement"].includes(parameters.sort)) return "";
    const rare = latents.filter((latent) => support(latent) < enough).length;
    return rare
      ? `The ${Format.plural(rare, "latent")} that ${rare === 1 ? "fires" : "fire"} in fewer than ${enough} samples of some stream ${rare === 1 ? "comes" : "come"} last, since agreement over so few is chance.`
      : "";
  };

  const percent = (value) => Format.share(Number(value));
  const describe = {
    q: (value) => `“${value}”`,
    only: (value, parameters) => parameters.why || `${Format.plural(value.split(",").length, "chosen latent")}`,
    state: (value) =>
      value === "none"
        ? "no state"
        : value
            .split(",")
            .map((name) => Dictionary.states.find((state) => state.name === name)?.label ?? name)
            .join(", "),
    agreement: (value) => `agreement at least ${value}`,
    purity: (value) => `purity at least ${value}`,
    min: (value) => `fires in at least ${percent(value)}`,
    max: (value) => `fires in at most ${percent(value)}`,
    branch: (value) => `branch: ${value}`,
    named: (value) => ({ label: "named by a label", words: "named by words", none: "without a name" })[value] ?? value,
    label: (value) => `named ${value}`,
    in: (value) => `fires in ${value}`,
    not: (value) => `never in ${value}`,
  };
  // [key, text] of each filter that is set, for the chips that remove it.
  const chips = (parameters) =>
    Object.keys(describe)
      .filter((key) => parameters[key])
      .map((key) => [key, describe[key](parameters[key], parameters)]);

  return { apply, chips, orders, unsorted, last };
})();
