package bootdoctor

// Case is one way in which a boot goes or ends: the evidence, and what is said of it. Words in braces are facts.
type Case struct {
	Name    string
	Level   Level
	Stopped Kind
	// Wire is the evidence on the wire and from the agent, Leaves what the machine leaves for its next boot.
	Wire, Leaves string
	// Sentence, Next and Causes are as in Verdict.
	Sentence, Next string
	Causes         []string
	// match returns the facts of a boot that is such a case, or nil.
	match func(*view) map[string]string
}

// inVariable is what an agent leaves that does not reach the appliance, see package left of the agent.
const inVariable = "on UEFI machines the reason, in a variable of the firmware, which the next boot that reaches the appliance tells; on BIOS machines nothing"

// caseOnTheWay is the case of a machine that goes on.
const caseOnTheWay = "on-the-way"

// Cases are all, in the order in which they are tried: the first that fits counts.
var Cases = concat(agentCases, kernelCases, loaderCases, packetCases, ownDiskCases, restCases)

func concat(lists ...[]Case) (all []Case) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// facts makes facts of names and values.
func facts(pairs ...string) map[string]string {
	m := make(map[string]string, len(pairs)/2+1)
	for i := 0; i+1 < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

// Texts are all texts of verdicts, for languages.
func Texts() (list []string) {
	for _, c := range Cases {
		list = append(list, c.Sentence)
		if c.Next != "" {
			list = append(list, c.Next)
		}
		list = append(list, c.Causes...)
	}
	for _, t := range leftTexts {
		list = append(list, t.Sentence, t.Next)
	}
	return list
}

// Phrases are the facts that are words of the doctor's own, for languages.
func Phrases() []string {
	return []string{ByFirmware, ByAgent, nothing, whyUnsigned, whyNoKey, whyNotBegun, whyVanished, whyNoneToldOf, hidesAll}
}

// Facts that are words.
const (
	nothing       = "nothing"
	whyUnsigned   = "it is on, and this loader is not signed for it"
	whyNoKey      = "its keys lack Microsoft's UEFI CA, by which the loader is signed"
	whyNotBegun   = "it is on, and the loader did not begin"
	whyVanished   = "the machine does not answer"
	whyNoneToldOf = "its inventory has none"
	hidesAll      = "no disk behind it is seen"
)

// Find returns the case of a name, or nil.
func Find(name string) *Case {
	for i := range Cases {
		if Cases[i].Name == name {
			return &Cases[i]
		}
	}
	return nil
}
