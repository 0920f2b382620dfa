#include "inference/trace_page.h"

#include "inference/html.h"
#include "inference/pieces.h"
#include "utils/json.h"

Json trace_json(const Trajectory& t, const Asked& asked, const TextModel& text, int block,
                bool full_attention) {
    std::vector<int> ids = t.output_ids, steps = t.step_map;
    ids.insert(ids.end(), t.tail_ids.begin(), t.tail_ids.end());
    steps.insert(steps.end(), t.tail_steps.begin(), t.tail_steps.end());
    std::vector<char> known;
    for (const int step : steps) known.push_back(step != NEVER);
    Json special = Json::array(), blocks = Json::array(), logprobs = Json::array();
    const int P = int(t.prompt_ids.size()), origin = full_attention ? P : 0;
    for (size_t i = 0; i < ids.size(); i++) {
        special.push_back(bool(known[i]) && text.tokenizer && text.tokenizer->is_special(ids[i]));
        blocks.push_back((P + int(i) - origin) / block);
        logprobs.push_back(i < t.logprobs.size() ? Json(t.logprobs[i]) : Json());  // the tail has none
    }
    std::string prompt = asked.prompt->shown;
    if (prompt.empty())
        prompt = text.tokenizer ? text.tokenizer->decode(t.prompt_ids) : format("%d token ids", P);
    return {{"prompt", prompt},
            {"sample", asked.sample},
            {"pieces", pieces_of(text.tokenizer.get(), ids, known)},
            {"step_map", steps},
            {"is_special", special},
            {"logprobs", logprobs},
            {"ids", ids},
            {"blocks", blocks},
            {"n_output", t.output_ids.size()},
            {"finish_reason", t.finish_reason},
            {"forward_passes", t.forward_passes},
            {"denoise_steps", t.denoise_steps}};
}

static const char* STYLE = R"css(#facts, .note { color: var(--soft); font-size: .85rem; }
#prompt { white-space: pre-wrap; border-left: 3px solid var(--line); padding: .2rem .8rem; margin: .8rem 0; overflow-wrap: anywhere; }
#bar { position: sticky; top: 0; background: var(--paper); border-bottom: 1px solid var(--line); padding: .6rem 0; display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; }
#bar input[type=range] { flex: 1 1 14rem; }
#text { white-space: pre-wrap; overflow-wrap: anywhere; font: 16px/2 ui-monospace, monospace; margin-top: 1rem; }
.t { border-radius: 3px; padding: .1em 0; cursor: default; }
.first { border-left: 1px solid var(--soft); padding-left: 2px; margin-left: 1px; }
.masked { color: var(--mask); }
.fresh { box-shadow: inset 0 -2px var(--new); }
.special { opacity: .55; font-size: .85em; }
.tail { opacity: .5; }
#tip { position: fixed; display: none; background: var(--ink); color: var(--paper); padding: .3rem .6rem; border-radius: 4px; font: 12px/1.4 ui-monospace, monospace; pointer-events: none; white-space: pre; }
)css";

static const char* BODY = R"html(<div id="facts"></div><div id="prompt"></div>
<div id="bar">
<select id="sample" aria-label="sample"></select>
<button id="play">play</button><button id="back">−1</button><button id="on">+1</button>
<input id="step" type="range" min="0" value="0" aria-label="reveal step"><span id="at"></span>
<select id="speed" aria-label="speed"><option value="600">slow</option><option value="250" selected>normal</option><option value="60">fast</option></select>
<select id="paint" aria-label="colour"><option value="p">colour: probability</option><option value="s">colour: step</option><option value="">no colour</option></select>
<label><input id="hide" type="checkbox"> hide special</label>
</div>
<div id="text"></div>
<p class="note">A line marks the beginning of a block; underlined is what this step revealed; ░ is still masked; pale text after the end is the rest
of the last block, which its neighbours saw. Keys: ← → one step, Home End, space plays.</p>
<div id="tip"></div>
<script>
const traces = )html";

static const char* SCRIPT = R"html(;
const $ = id => document.getElementById(id);
let trace, last = 0, timer = null;
function spans() {
  $("text").replaceChildren(...trace.pieces.map((piece, i) => {
    const e = document.createElement("span");
    e.dataset.i = i;
    return e;
  }));
}
function colour(i) {
  const mode = $("paint").value;
  if (mode === "p" && trace.logprobs[i] !== null) return `hsl(${120 * Math.exp(trace.logprobs[i])} 70% 50% / .35)`;
  if (mode === "s") return `hsl(${260 - 220 * trace.step_map[i] / Math.max(last, 1)} 70% 55% / .35)`;
  return "";
}
function show() {
  const step = +$("step").value;
  let shown = 0, fresh = 0;
  [...$("text").children].forEach((e, i) => {
    const at = trace.step_map[i], known = at >= 0 && at <= step, special = trace.is_special[i];
    e.textContent = known ? (special && $("hide").checked ? "" : trace.pieces[i]) : "░";
    e.className = "t" + (i > 0 && trace.blocks[i] !== trace.blocks[i - 1] ? " first" : "") + (known ? "" : " masked") +
      (known && at === step ? " fresh" : "") + (known && special ? " special" : "") + (i >= trace.n_output ? " tail" : "");
    e.style.background = known ? colour(i) : "";
    shown += known; fresh += known && at === step;
  });
  $("at").textContent = `step ${step} of ${last}: ${shown} of ${trace.pieces.length} tokens` + (step ? `, ${fresh} new` : "");
}
function open_trace(k) {
  trace = traces[k];
  last = trace.step_map.reduce((a, b) => Math.max(a, b), 0);
  $("step").max = last;
  $("step").value = last;
  $("prompt").textContent = trace.prompt;
  $("facts").textContent = `${trace.n_output} tokens in ${trace.denoise_steps} reveal steps and ${trace.forward_passes} forward passes ` +
    `(${(trace.n_output / Math.max(trace.forward_passes, 1)).toFixed(2)} tokens per forward), ended by: ${trace.finish_reason}`;
  spans();
  show();
}
function move(by) { $("step").value = +$("step").value + by; show(); }
function stop() { clearInterval(timer); timer = null; $("play").textContent = "play"; }
function play() {
  if (timer) return stop();
  if (+$("step").value >= last) $("step").value = 0;
  $("play").textContent = "pause";
  timer = setInterval(() => { move(1); if (+$("step").value >= last) stop(); }, +$("speed").value);
}
traces.forEach((t, k) => $("sample").append(new Option(t.label ?? `${k + 1} of ${traces.length}`, k)));
$("sample").hidden = traces.length < 2;
$("sample").onchange = () => { stop(); open_trace(+$("sample").value); };
$("play").onclick = play;
$("back").onclick = () => move(-1);
$("on").onclick = () => move(1);
$("step").oninput = show;
$("paint").onchange = $("hide").onchange = show;
$("speed").onchange = () => { if (timer) { stop(); play(); } };
document.onkeydown = e => {
  // Beside other things on a page the keys are the player's only where it has the focus.
  if (document.querySelector("figure") && !$("bar").contains(document.activeElement)) return;
  if (e.target.tagName === "SELECT" || (e.target.tagName === "BUTTON" && e.key === " ")) return;
  const keys = { ArrowLeft: () => move(-1), ArrowRight: () => move(1), Home: () => move(-1e9), End: () => move(1e9), " ": play };
  if (keys[e.key]) { keys[e.key](); e.preventDefault(); }
};
$("text").onmousemove = e => {
  const i = e.target.dataset.i, tip = $("tip");
  if (i === undefined) { tip.style.display = "none"; return; }
  const p = trace.logprobs[i];
  tip.textContent = `id ${trace.ids[i]}  block ${trace.blocks[i]}\n` + (trace.step_map[i] < 0 ? "masked to the end" : `step ${trace.step_map[i]}`) +
    (p === null ? "" : `\nlog p ${p.toFixed(4)}  p ${Math.exp(p).toFixed(4)}`);
  tip.style.cssText = `display: block; left: ${Math.min(e.clientX + 12, innerWidth - 190)}px; top: ${e.clientY + 16}px`;
};
$("text").onmouseleave = () => { $("tip").style.display = "none"; };
open_trace(0);
</script>
)html";

std::string trace_player_style() { return STYLE; }

std::string trace_player(const Json& traces) { return BODY + script_json(dump(traces)) + SCRIPT; }

std::string trace_page(const Json& traces, const std::string& model) {
    return page_head("How the text came to be", STYLE) + "<h1>How the text came to be: " + html_text(model) +
           "</h1>\n" + trace_player(traces) + "</body></html>\n";
}
