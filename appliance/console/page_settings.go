package console

import "seedbed/appliance/fleet"

// settingsPage is how the site works.
var settingsPage = &page{path: "/settings", name: "settings", nav: text("Settings"), role: fleet.RoleAdmin}
