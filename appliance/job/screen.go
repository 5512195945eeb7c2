package job

// Screen is what a machine's own screen says, in its words. An agent tells it with a report or a claim when it has changed, and again
// from time to time; every text is at most MaxScreenText bytes.
type Screen struct {
	// Level is how the machine stands: "working", "waiting", "done", "failed".
	Level string `json:"level"`
	// Word is the state: "copying". Headline says more in few words: "disk too small".
	Word     string `json:"word,omitempty"`
	Headline string `json:"headline,omitempty"`
	// Message is what happens, to what, what to do; Notice something beside it.
	Message string `json:"message,omitempty"`
	Notice  string `json:"notice,omitempty"`
}

// MaxScreenText bounds each text of a Screen, in bytes: more does not fit on a screen of 80 by 25.
const MaxScreenText = 1000
