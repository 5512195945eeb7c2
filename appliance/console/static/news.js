// What comes to need a look in the rooms is said to screen readers, at most every ten seconds: nothing else there speaks by itself.
"use strict";
(() => {
  const news = document.getElementById("news");
  const troubles = () => new Map([...document.querySelectorAll("#attention .rows li")].map((li) => [li.querySelector("a").id + li.firstElementChild.className, li.querySelector("a").textContent + " " + li.firstElementChild.textContent]));
  let told = troubles();
  let telling = 0;
  const speak = () => {
    telling = 0;
    const now = troubles();
    const fresh = [...now].filter(([key]) => !told.has(key)).map(([, text]) => text);
    told = now;
    if (fresh.length === 0) return;
    news.textContent = document.getElementById("attention-title").textContent + ": " + fresh.slice(0, 5).join(", ") + (fresh.length > 5 ? ", +" + (fresh.length - 5) : "");
    telling = setTimeout(speak, 10000);
  };
  document.addEventListener("live:parts", () => !telling && speak());
})();
