// Package monitor judges how machines at work get on: rates, words, causes and forecasts, from what they report each second.
package monitor

import (
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// Word says in one word how a machine gets on. Languages translate it.
type Word string

const (
	Idle      Word = "idle"      // it has no job
	Waiting   Word = "waiting"   // its job has not begun; Progress.Why says what it waits for
	Normal    Word = "normal"    // it works as it should
	Slow      Word = "slow"      // see Thresholds; Progress.Cause says why
	Silent    Word = "silent"    // it is at work and said nothing for Thresholds.Silence
	Paused    Word = "paused"    //
	Failed    Word = "failed"    //
	Done      Word = "done"      //
	Cancelled Word = "cancelled" //
)

// Colour of a word: "green", "yellow", "red" or "grey". It never stands alone: each place that shows it shows the word and a shape too.
func (w Word) Colour() string {
	switch w {
	case Normal, Done:
		return "green"
	case Slow:
		return "yellow"
	case Silent, Failed:
		return "red"
	default:
		return "grey"
	}
}

// Cause says what holds a machine back.
type Cause string

const (
	CauseNone   Cause = ""
	CauseLink   Cause = "link"   // its network card negotiated too little
	CauseDisk   Cause = "disk"   // its disk writes no faster
	CauseCPU    Cause = "cpu"    // its processors are busy
	CauseAlone  Cause = "alone"  // it has no peers
	CausePeers  Cause = "peers"  // it waits for what its peers do not send
	CauseSource Cause = "source" // nobody sends faster: the appliance is the only one that has what is missing
	CauseCap    Cause = "cap"    // a limit that somebody set; such a machine is not slow
)

// Thresholds are what words are judged by. The zero value of a field means its default.
type Thresholds struct {
	// SlowRate is the rate below which a machine is slow, in bytes a second; 10e6.
	SlowRate float64 `json:"slow_rate"`
	// SlowShare is the share of the room's median below which a machine is slow; 0.25.
	SlowShare float64 `json:"slow_share"`
	// SlowFor is how long it has to be; 30 s.
	SlowFor time.Duration `json:"slow_for"`
	// Silence is after how long without a report a machine is silent; 120 s.
	Silence time.Duration `json:"silence"`
}

// Or returns the thresholds with defaults where fields are zero.
func (t Thresholds) Or() Thresholds {
	if t.SlowRate == 0 {
		t.SlowRate = 10e6
	}
	if t.SlowShare == 0 {
		t.SlowShare = 0.25
	}
	if t.SlowFor == 0 {
		t.SlowFor = 30 * time.Second
	}
	if t.Silence == 0 {
		t.Silence = 120 * time.Second
	}
	return t
}

// Progress is how far a machine is with its job. Immutable: while nothing of it changes, pictures share one, so that another pointer
// says that something did.
type Progress struct {
	Machine, Name string // ID and name of the machine
	Job           string // ID of its oldest job that has not ended, else of its latest one; "" is none
	Deployment    string // ID, "" where its job belongs to none
	Kind          job.Kind
	ImageName     string
	State         job.State
	Phase         job.Phase

	Word  Word
	Cause Cause
	// Why is a sentence: what a job waits for, why it failed, is paused, slow ("its network card has negotiated 100 Mbit/s") or silent; "" is nothing to say.
	Why string
	// Code is the short fixed word of a failure or of what is waited for, Log the last lines of a machine whose job failed.
	Code, Log string

	// Done of Total bytes; of a deployment what is right on the disk in the transfer and read back in the verification.
	Done, Total int64
	// Rate is bytes that became right on the disk, or were found right on it, a second in the transfer phase (or bytes read of a capture
	// or verify, or wiped), over the last 5 s; 0 outside. Judged is the same over the last Thresholds.SlowFor, -1 where it was not in that phase for so long.
	Rate, Judged float64
	// Left is how long the rest takes at the rate of the last 30 s, verification included; -1 is not known.
	Left time.Duration
	// Rates of received and sent bytes on the wire, a second, over the last 5 s. What came from appliances, from machines and from seed
	// nodes are three sums: none counts what another counts.
	FromAppliance, FromPeers, FromSeeds, ToPeers float64
	// Bytes on the wire so far.
	BytesFromAppliance, BytesFromPeers, BytesFromSeeds, BytesToPeers int64
	Peers                                                            int
	// LinkMbit is what its boot NIC negotiated, SiblingsMbit what those beside it did (the median), 0 is not known. DiskRate is how fast its disk took what was written, bytes a second, CPU
	// the busy share of its processors, 0 to 1; 0 is not known.
	LinkMbit, SiblingsMbit int
	DiskRate, CPU          float64
	// Tiles came from others over the last 60 s, WrongTiles of them failed their hash.
	Tiles, WrongTiles int64
	Reported          time.Time // the last report; zero is none
	Since             time.Time // when it got its word

	held    int64       // bytes of the image that its disk holds rightly
	earlier fleet.Moved // of claims before this one
}

// Share of Total that is done, 0 to 1.
func (p *Progress) Share() float64 {
	if p.Total <= 0 {
		if p.Word == Done {
			return 1
		}
		return 0
	}
	return min(1, max(0, float64(p.Done)/float64(p.Total)))
}

// Sample is one moment of a deployment, all rates in bytes a second.
type Sample struct {
	At                                  time.Time
	Rate                                float64 // bytes made right on disks
	FromAppliance, FromPeers, FromSeeds float64 // on the wire
	AtWork                              int     // machines in the transfer
}

// Course is how a deployment, or all machines of a room, get on. Immutable.
type Course struct {
	ID       string // of the deployment or group
	Machines int
	Words    map[Word]int
	// Sums over its machines.
	Rate, FromAppliance, FromPeers, FromSeeds                   float64
	BytesFromAppliance, BytesFromPeers, BytesFromSeeds, Written int64
	// Median of the rates of machines in the transfer.
	Median float64
	// Efficiency is what machines in the transfer receive on the wire against what their links could, 0 to 1; -1 is not known.
	Efficiency float64
	// Last is the machine that is expected to be done last, LastAt when; zero is not known.
	Last   string
	LastAt time.Time
	// Series are the moments since its first machine began, at most 600: older ones lie further apart.
	Series []Sample
}

// Picture is how all machines get on at a moment. Immutable, maps included.
type Picture struct {
	At          time.Time
	Thresholds  Thresholds
	Machines    map[string]*Progress // by machine ID, all machines of the site
	Deployments map[string]*Course   // by ID, those with a job that has not ended or that ended in this run of the appliance
	Groups      map[string]*Course   // by ID; Series is empty
}
