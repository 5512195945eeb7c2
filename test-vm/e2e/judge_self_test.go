package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"seedbed/test-vm/golden"
	"seedbed/test-vm/lab"
)

// findings collects what the judge has to say.
type findings struct {
	*testing.T
	said []string
}

func (f *findings) Errorf(format string, args ...any) {
	f.said = append(f.said, fmt.Sprintf(format, args...))
}

func TestTheJudgeSeesOneWrongByteAndAWrittenFreeBlock(t *testing.T) {
	file := image(t, golden.Mini)
	dir, err := filepath.Abs(filepath.Join(logDir, "judge"))
	must(t, err)
	must(t, os.RemoveAll(dir))
	must(t, os.MkdirAll(dir, 0o755))
	defer removeDisks(t, dir)
	s := takeApart(t, file, dir)
	root := s.entries[rootIndex]
	used := s.used[rootIndex]
	last := used[len(used)-1]
	free := extent{last.offset + last.length, root.Size*512 - last.offset - last.length}
	// What a machine's empty disk holds afterwards is the source without what lies in free space.
	right := filepath.Join(dir, "judge-right")
	must(t, lab.Disk{Path: file}.Copy(t.Context(), right))
	patch(t, right, root.Start*512+free.offset, make([]byte, free.length))
	got := &findings{T: t}
	s.judge(got, right, dir)
	if len(got.said) > 0 {
		t.Errorf("the judge says of a disk that is right: %s", got.said)
	}
	wrong := filepath.Join(dir, "judge-wrong")
	must(t, lab.Disk{Path: right}.Copy(t.Context(), wrong))
	for _, offset := range []int64{
		s.entries[espIndex].Start*512 + 3<<20, root.Start*512 + used[0].offset + 5<<20, s.entries[dataIndex].Start*512 + 32<<20,
		root.Start*512 + free.offset + 8192, golden.DiskLength - 30*512, // in the backup table
	} {
		invert(t, wrong, offset)
	}
	s.judge(got, wrong, dir)
	all := strings.Join(got.said, "\n")
	for _, want := range []string{"wrong-p2: used byte", "wrong-p3: used byte", "wrong-p5: used byte", "free block", "sgdisk"} {
		if !strings.Contains(all, want) {
			t.Errorf("the judge does not say %q of a disk with one wrong byte per partition:\n%s", want, all)
		}
	}
}

// invert changes every bit of one byte.
func invert(t *testing.T, path string, offset int64) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, offset)
	must(t, err)
	patch(t, path, offset, []byte{^b[0]})
}

func patch(t *testing.T, path string, offset int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt(b, offset)
	must(t, err)
}
