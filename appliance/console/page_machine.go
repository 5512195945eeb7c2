package console

// machinePage is one machine.
var machinePage = &page{path: "/machines/{machine}", name: "machine", under: "rooms", title: func(v *visit, _ any) string { return v.t("Machine") }}
