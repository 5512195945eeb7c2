// Package dashboard is a dashboard for Grafana that shows what package metrics tells.
package dashboard

import _ "embed" // for JSON

// JSON is the dashboard, for Grafana 10 and later: it is imported as it is, and asks for the Prometheus that scrapes the site's
// appliances.
//
//go:embed grafana.json
var JSON []byte
