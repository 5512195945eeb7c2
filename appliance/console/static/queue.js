// Jobs of the queue are put elsewhere by dragging their grips and by buttons. See page_queue.go.
"use strict";
(() => {
  const said = document.getElementById("said");
  let busy = false;

  // move asks for a place between two jobs, as they stand on this page. What comes back is the queue as it is then.
  const move = async (row, after, before, focus) => {
    if (busy || before === row.dataset.job || after === row.dataset.job) return;
    busy = true;
    try {
      const answer = await fetch("/queue/move", {
        method: "POST",
        headers: {
          "X-CSRF-Token": document.querySelector('meta[name="csrf"]').content,
          "HX-Request": "true",
          "HX-Current-URL": location.href,
        },
        body: new URLSearchParams({ job: row.dataset.job, version: row.dataset.version, after, before }),
      });
      if (answer.headers.get("HX-Redirect")) {
        location.href = answer.headers.get("HX-Redirect"); // the login
        return;
      }
      const t = document.createElement("template");
      t.innerHTML = await answer.text();
      const told = t.content.querySelector("[data-said], .message");
      if (told) said.replaceChildren(told);
      const fresh = t.content.getElementById("queue");
      if (fresh) document.getElementById("queue").replaceWith(fresh);
    } catch {
      said.textContent = document.body.dataset.lost;
    } finally {
      busy = false;
    }
    const button = focus && document.getElementById(focus);
    if (button && !button.disabled) button.focus();
    else if (button) button.parentElement.querySelector("button:not(:disabled)")?.focus();
  };

  // What the answer says is taken at once: the next live part has it no more.
  new MutationObserver(() => {
    const told = document.querySelector("#queue [data-said]");
    if (!told) return;
    said.replaceChildren(told);
    told.removeAttribute("data-said");
  }).observe(document.getElementById("main"), { childList: true, subtree: true });

  document.addEventListener("click", (e) => {
    const button = e.target.closest("#queue .moves button");
    if (button) move(button.closest("tr"), button.dataset.after, button.dataset.before, button.id);
  });

  // A drag knows its job by the ID: the list may be shown anew meanwhile.
  let dragged = null;
  const rowOf = (id) => document.querySelector(`#queue tr[data-job="${CSS.escape(id)}"]`);
  const clear = () => document.querySelectorAll("#queue .drop-before, #queue .drop-after").forEach((r) => r.classList.remove("drop-before", "drop-after"));
  const under = (e) => {
    const row = document.elementFromPoint(e.clientX, e.clientY)?.closest("#queue tr[data-job]");
    if (!row) return null;
    const box = row.getBoundingClientRect();
    return { row, behind: e.clientY > box.top + box.height / 2 };
  };
  document.addEventListener("pointerdown", (e) => {
    const grip = e.target.closest("#queue .grip");
    if (!grip || e.button !== 0) return;
    e.preventDefault();
    const row = grip.closest("tr");
    dragged = { id: row.dataset.job, version: row.dataset.version };
    row.classList.add("dragged");
    document.body.classList.add("dragging");
  });
  document.addEventListener("pointermove", (e) => {
    if (!dragged) return;
    clear();
    rowOf(dragged.id)?.classList.add("dragged");
    const at = under(e);
    if (at && at.row.dataset.job !== dragged.id) at.row.classList.add(at.behind ? "drop-after" : "drop-before");
  });
  const end = () => {
    clear();
    document.body.classList.remove("dragging");
    document.querySelectorAll("#queue .dragged").forEach((r) => r.classList.remove("dragged"));
    dragged = null;
  };
  document.addEventListener("pointercancel", end);
  document.addEventListener("keydown", (e) => e.key === "Escape" && end());
  document.addEventListener("pointerup", (e) => {
    if (!dragged) return;
    const own = rowOf(dragged.id);
    const { version } = dragged;
    const at = under(e);
    end();
    if (!own || !at || at.row === own) return;
    // The neighbours of the place, without the job itself.
    let after = at.behind ? at.row.dataset.job : at.row.dataset.previous;
    let before = at.behind ? at.row.dataset.next : at.row.dataset.job;
    if (after === own.dataset.job) after = own.dataset.previous;
    if (before === own.dataset.job) before = own.dataset.next;
    if (after === own.dataset.previous && before === own.dataset.next) return; // where it stands
    move({ dataset: { job: own.dataset.job, version } }, after, before, "");
  });
})();
