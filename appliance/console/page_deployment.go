package console

// deploymentPage is one deployment.
var deploymentPage = &page{path: "/deployments/{deployment}", name: "deployment", under: "deployments", chart: true, title: func(v *visit, _ any) string { return v.t("Deployment") }}
