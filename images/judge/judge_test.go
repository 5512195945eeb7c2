package judge

import (
	"os/exec"
	"testing"
)

// TestProgramsAreThere builds what is not there yet. It runs before all other suites.
func TestProgramsAreThere(t *testing.T) {
	for _, p := range Programs {
		program, err := p.Build()
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), program, "--help").CombinedOutput(); len(out) == 0 {
			t.Errorf("%s says nothing: %v", program, err)
		}
	}
}
