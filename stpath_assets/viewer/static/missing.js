// Says why a slide's page is not there.

import { ask } from "/static/api.js";

const [, what, id] = location.pathname.split("/");
if (what === "slides" && id) {
  ask(`/api/slides/${id}`).catch((error) => {
    document.getElementById("status").textContent = error.message;
  });
}
