package boot

import (
	"testing"

	"pgregory.net/rapid"
)

func TestDecide(t *testing.T) {
	uefi := func(f Facts) Facts { f.Arch = ArchEFIX64; return f }
	for _, c := range []struct {
		name  string
		facts Facts
		want  Loader
	}{
		{"BIOS card without iPXE", Facts{Arch: ArchBIOS}, LoaderUndionly},
		{"BIOS card with iPXE in it", Facts{Arch: ArchBIOS, IPXE: true}, LoaderScript},
		{"undionly that was just loaded", Facts{Arch: ArchBIOS, IPXE: true, Failed: []Loader{LoaderUndionly}}, LoaderScript},
		{"BIOS whose only loader came to nothing", Facts{Arch: ArchBIOS, Failed: []Loader{LoaderUndionly}}, LoaderUndionly},

		{"unknown UEFI machine", uefi(Facts{}), LoaderShim},
		{"UEFI machine that names byte code", Facts{Arch: ArchEFIBC}, LoaderShim},
		{"UEFI machine booting from HTTP", Facts{Arch: ArchHTTPX64, HTTP: true}, LoaderShim},
		{"UEFI machine with iPXE in its card", uefi(Facts{IPXE: true}), LoaderScript},
		{"known, Secure Boot off", uefi(Facts{Known: true, SecureBoot: SecureBootOff}), LoaderSNPOnly},
		{"known, Secure Boot on", uefi(Facts{Known: true, SecureBoot: SecureBootOn}), LoaderShim},
		{"known, Secure Boot not told", uefi(Facts{Known: true}), LoaderShim},
		{"off, told by nobody who knows the machine", uefi(Facts{SecureBoot: SecureBootOff}), LoaderShim},
		{"Secure Boot on is never given iPXE, whatever worked once",
			uefi(Facts{Known: true, SecureBoot: SecureBootOn, Worked: LoaderSNPOnly}), LoaderShim},
		{"Secure Boot on is given shim again after it came to nothing",
			uefi(Facts{Known: true, SecureBoot: SecureBootOn, Failed: []Loader{LoaderShim}}), LoaderShim},

		{"snponly hangs", uefi(Facts{Known: true, SecureBoot: SecureBootOff, Failed: []Loader{LoaderSNPOnly}}), LoaderIPXE},
		{"snponly and ipxe hang",
			uefi(Facts{Known: true, SecureBoot: SecureBootOff, Failed: []Loader{LoaderSNPOnly, LoaderIPXE}}), LoaderShim},
		{"everything hangs",
			uefi(Facts{Known: true, SecureBoot: SecureBootOff, Failed: []Loader{LoaderSNPOnly, LoaderIPXE, LoaderShim}}), LoaderSNPOnly},
		{"shim hangs on an unknown machine", uefi(Facts{Failed: []Loader{LoaderShim}}), LoaderSNPOnly},
		{"what worked comes first", uefi(Facts{Known: true, SecureBoot: SecureBootOff, Worked: LoaderIPXE}), LoaderIPXE},
		{"what worked and then came to nothing does not",
			uefi(Facts{Known: true, SecureBoot: SecureBootOff, Worked: LoaderIPXE, Failed: []Loader{LoaderIPXE}}), LoaderSNPOnly},
		{"what worked on another kind of firmware is no candidate", uefi(Facts{Worked: LoaderUndionly}), LoaderShim},

		{"own disk that GRUB does not find", uefi(Facts{Run: RunLocal, Blind: true}), LoaderNone},
		{"agent where GRUB finds no disk", uefi(Facts{Run: RunAgent, Blind: true}), LoaderShim},

		{"32-bit UEFI", Facts{Arch: ArchEFIIA32}, LoaderNone},
		{"ARM64", Facts{Arch: ArchEFIARM64}, LoaderNone},
		{"an architecture of tomorrow", Facts{Arch: 0x77}, LoaderNone},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Decide(c.facts)
			if got.Loader != c.want {
				t.Errorf("%q (%s), want %q", got.Loader, got.Reason, c.want)
			}
			if got.Reason == "" {
				t.Error("no reason given")
			}
		})
	}
}

// Whatever the facts: iPXE gets the script and nobody else does, firmware gets only what it can run, and unsigned
// programs never go to a machine that is known to refuse them.
func TestDecideHoldsItsRules(t *testing.T) {
	loaders := []Loader{LoaderNone, LoaderUndionly, LoaderShim, LoaderSNPOnly, LoaderIPXE}
	rapid.Check(t, func(t *rapid.T) {
		f := Facts{
			Arch:       rapid.SampledFrom([]Arch{ArchBIOS, ArchEFIIA32, ArchEFIX64, ArchEFIBC, ArchEFIARM64, ArchHTTPX64}).Draw(t, "arch"),
			HTTP:       rapid.Bool().Draw(t, "http"),
			IPXE:       rapid.Bool().Draw(t, "ipxe"),
			Known:      rapid.Bool().Draw(t, "known"),
			Blind:      rapid.Bool().Draw(t, "blind"),
			SecureBoot: rapid.SampledFrom([]string{"", SecureBootOn, SecureBootOff}).Draw(t, "secure boot"),
			Run:        rapid.SampledFrom([]Run{RunAgent, RunLocal}).Draw(t, "run"),
			Worked:     rapid.SampledFrom(loaders).Draw(t, "worked"),
			Failed:     rapid.SliceOf(rapid.SampledFrom(loaders[1:])).Draw(t, "failed"),
		}
		got := Decide(f).Loader
		if f.IPXE != (got == LoaderScript) {
			t.Fatalf("%+v: %q", f, got)
		}
		if got == LoaderUndionly && f.Arch != ArchBIOS {
			t.Fatalf("%+v: a BIOS program", f)
		}
		if (got == LoaderShim || got == LoaderSNPOnly || got == LoaderIPXE) && !f.Arch.UEFI() {
			t.Fatalf("%+v: a UEFI program %q", f, got)
		}
		if f.SecureBoot == SecureBootOn && !f.IPXE && f.Arch.UEFI() && got != LoaderShim && got != LoaderNone {
			t.Fatalf("%+v: unsigned %q", f, got)
		}
	})
}
