package console

// deploymentsPage lists the deployments.
var deploymentsPage = &page{path: "/deployments", name: "deployments", nav: text("Deployments"), routes: orderRoutes}
