package console

// alertsPage is what needs a person, and what was told to whom.
var alertsPage = &page{path: "/alerts", name: "alerts", nav: text("Alerts")}
