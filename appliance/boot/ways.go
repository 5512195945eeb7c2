package boot

import (
	"path/filepath"
	"strings"
)

// Way is one way by which machines boot, and whether its files are there.
type Way struct {
	Name string // for people: "UEFI with Secure Boot"
	// Wrong says what is wrong with each of its files that cannot be served, and what to do; "" where nothing is.
	Wrong string
}

// ways are the files that each kind of firmware takes on its way to the agent.
var ways = []struct {
	name  string
	files []string
}{
	{"BIOS", []string{fileUndionly, fileKernel, fileInitramfs}},
	{"UEFI", []string{fileSNPOnly, fileIPXE, fileKernel, fileInitramfs}},
	{"UEFI with Secure Boot", []string{fileShim, fileGRUB, fileKernel, fileInitramfs}},
}

// Ways reads the boot directory and says of each way whether machines get by it to the agent. Each file is read once.
func Ways(dir string) []Way {
	sums, err := readManifest(filepath.Join(dir, fileManifest))
	complaints := map[string]string{}
	list := make([]Way, 0, len(ways))
	for _, w := range ways {
		var wrong []string
		if err != nil {
			wrong = append(wrong, err.Error())
		}
		for _, name := range w.files {
			complaint, read := complaints[name]
			if !read {
				if _, err := readSummed(filepath.Join(dir, name), sums[name], false); err != nil {
					complaint = err.Error()
				}
				complaints[name] = complaint
			}
			if complaint != "" {
				wrong = append(wrong, complaint)
			}
		}
		way := Way{Name: w.name}
		if wrong != nil {
			way.Wrong = strings.Join(wrong, ", ") + "; " + remedy
		}
		list = append(list, way)
	}
	return list
}
