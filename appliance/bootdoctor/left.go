package bootdoctor

import (
	"time"

	"seedbed/appliance/job"
)

// Left is what kept the agent from the appliance in an earlier boot, as that boot left it on the machine and a later one told it: it
// stands beside the verdict on the present boot.
type Left struct {
	// Code is that of what was left, see job.Left; At when it was, zero is not known.
	Code string    `json:"code"`
	At   time.Time `json:"at,omitzero"`
	// Sentence says what happened, to what; Next what to do.
	Sentence string `json:"sentence"`
	Next     string `json:"next"`
	// Facts are as in Verdict.
	Facts map[string]string `json:"facts,omitempty"`
}

// LeftText is what is said of a reason that was left.
type LeftText struct{ Sentence, Next string }

// leftTexts are those of the codes of job.Left.
var leftTexts = map[string]LeftText{
	job.TroubleUnreachable: {"in a boot before this one the agent of {name} got no answer of this appliance: {note}",
		"if it comes again, open TCP port 443 of this appliance to the machines: look at the firewall of this host and at filters between"},
	job.TroubleCertificate: {"in a boot before this one the agent of {name} did not trust what answered it at TCP port 443: {note}",
		"if it comes again, set the clock of this appliance right (`seedbed doctor` compares clocks), and look for a proxy or another computer that answers at the appliance's address"},
	job.LeftNoDriver: {"in a boot before this one the agent's kernel had no driver for the network card by which {name} booted: {note}",
		"if it comes again, boot it by another network card or a USB adapter; a newer initramfs may have the driver"},
	job.LeftNoCard: {"in a boot before this one the agent of {name} found no network card: {note}",
		"if it comes again, plug the network card in anew, or use another one"},
	job.LeftNoLink: {"in a boot before this one the network card of {name} had no link: {note}",
		"if it comes again, look at its cable, its plug and its switch port"},
	job.LeftNoAddress: {"in a boot before this one no DHCP server gave the agent of {name} an address: {note}",
		"if it comes again, set its switch port to edge (portfast), and see that the DHCP server has addresses free"},
}

// LeftTextOf returns what is said of a code; false is one that is not known here.
func LeftTextOf(code string) (LeftText, bool) {
	t, known := leftTexts[code]
	return t, known
}

// leftFor is how long after a hello what it told of an earlier boot is shown.
const leftFor = 24 * time.Hour

// leftOf returns what is said of what an earlier boot left; nil is nothing.
func leftOf(in *Input) *Left {
	l := in.Left
	if l == nil || in.Now.Sub(in.Hello) > leftFor {
		return nil
	}
	t, known := leftTexts[l.Code]
	if !known {
		return nil
	}
	f := facts("name", or(in.Name, in.Boot.MAC), "note", sentence(l.Text))
	return &Left{Code: l.Code, At: l.At, Sentence: Fill(t.Sentence, f), Next: Fill(t.Next, f), Facts: f}
}
