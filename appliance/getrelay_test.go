package main

import (
	"testing"

	"seedbed/images"
	"seedbed/images/relay"
)

// What machines gave is asked of nobody at the next start, the regions of the frame included.
func TestADescriptionIsKept(t *testing.T) {
	region := make([]byte, 20<<10)
	ref := images.Ref{Digest: images.Sum(region), Length: int64(len(region))}
	dir := t.TempDir()
	before := &described{dir: dir, objects: relay.Memory{}}
	if err := before.take(relay.Memory{ref.Digest: region}); err != nil {
		t.Fatal(err)
	}
	if b, err := (&described{dir: dir}).onDisk(ref); err != nil || images.Sum(b) != ref.Digest || before.objects[ref.Digest] == nil {
		t.Errorf("%d bytes of %d: %v", len(b), ref.Length, err)
	}
	if err := (&described{objects: relay.Memory{}}).take(relay.Memory{ref.Digest: region}); err != nil {
		t.Errorf("kept nowhere: %v", err)
	}
}
