package console

// eventsPage is what happened.
var eventsPage = &page{path: "/events", name: "events", nav: text("Events")}
