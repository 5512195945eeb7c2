package job

import "time"

// Left is what kept an agent from its appliance in an earlier boot of the machine, as that boot left it where the next one finds it.
type Left struct {
	// Code is TroubleUnreachable, TroubleCertificate or one of those below.
	Code string `json:"code"`
	Text string `json:"text"` // a sentence
	// At is when that was, by the machine's own clock in what the agent tells, by the appliance's in what that shows; zero is not known.
	At time.Time `json:"at,omitzero"`
}

// Codes of what keeps an agent from the network.
const (
	LeftNoDriver  = "no-driver"  // no driver took the network card
	LeftNoCard    = "no-card"    // there is no network card
	LeftNoLink    = "no-link"    // no cable, or nothing at its other end
	LeftNoAddress = "no-address" // no DHCP server answers
)
