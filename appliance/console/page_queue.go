package console

// queuePage is what waits, and for what.
var queuePage = &page{path: "/queue", name: "queue", nav: text("Queue")}
