package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/test-vm/golden"
	"seedbed/test-vm/lab"
)

func TestAMachineIsCapturedOverTheNetworkAndItsDiskKeepsEveryByte(t *testing.T) {
	r := openRoom(t, "capture", lab.Config{})
	a := r.serve()
	source, err := r.CopyDisk(t.Context(), "source", image(t, golden.Mini))
	must(t, err)
	before := sum(t, source)
	m := r.machine("reference", lab.BIOS, source)
	r.known(a, m)

	r.seedbed(a, "capture", m.MAC.String(), "--name", "captured")
	boot := start(t, m, lab.StartOptions{StopAtReboot: true})
	must(t, boot.WaitEnd(within(t, 3*time.Minute)))
	j := waitJob(t, a, m, 10*time.Second, succeeded)
	if j.ImageName != "captured:1" || j.Kind != job.Capture || j.DiskSerial != source.Serial {
		t.Errorf("job %+v", j)
	}
	if sum(t, source) != before {
		t.Error("the disk that was captured has changed")
	}
	fromFile, err := a.AddImage(t.Context(), "file", source.Path)
	must(t, err)
	out, err := a.Command(t.Context(), "image", "show", "captured", "--json")
	must(t, err)
	captured := new(api.ImageDetail)
	must(t, json.Unmarshal(out, captured))
	if got, want := partitionRoots(captured), partitionRoots(fromFile); len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("partitions as the machine captured them: %v, as the file has them: %v", got, want)
	}
	if captured.Manifest.DiskLength != fromFile.Manifest.DiskLength || !slices.Equal(captured.Manifest.Frame.Region, fromFile.Manifest.Frame.Region) {
		t.Errorf("frame as the machine captured it: %+v, as the file has it: %+v", captured.Manifest.Frame, fromFile.Manifest.Frame)
	}
	_, err = a.Command(t.Context(), "image", "verify", "captured")
	must(t, err)
	events, err := a.Events(t.Context())
	must(t, err)
	said := ""
	for _, e := range events {
		said += e.Text + "\n"
	}
	if !strings.Contains(said, "captured captured:1 from reference") {
		t.Errorf("events:\n%s", said)
	}
	t.Logf("agent's word %.0f s after the first packet, %.1f MB read in %.1f s, %.2f MB sent", j.HelloAt.Sub(j.BootSeen).Seconds(),
		float64(j.Done)/1e6, j.Ended.Sub(j.Started).Seconds(), float64(j.Sent)/1e6)
}

// partitionRoots are the roots of an image's partitions.
func partitionRoots(d *api.ImageDetail) (list []images.Digest) {
	for i := range d.Manifest.Partitions {
		list = append(list, d.Manifest.Partitions[i].Root)
	}
	return list
}
