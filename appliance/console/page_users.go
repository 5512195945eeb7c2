package console

import "seedbed/appliance/fleet"

// usersPage lists who may log in.
var usersPage = &page{path: "/users", name: "users", nav: text("Users"), role: fleet.RoleAdmin}
