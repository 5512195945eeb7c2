package console

// startPage leads to the first deployment.
var startPage = &page{path: "/start", name: "start", nav: text("First steps")}
