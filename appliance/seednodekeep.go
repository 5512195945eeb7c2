package main

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"seedbed/appliance/job"
	"seedbed/images"
)

// This file holds what a seed node removes to make room. All is called by the goroutine of control, but for noRoom.

// usedFile is changed when an image is used: its time is that of the last use.
const usedFile = "used"

// touchEvery is how far behind the time of usedFile may be.
const touchEvery = 30 * time.Second

// touch notes that the image is used. The caller holds mu.
func (i *nodeImage) touch(now time.Time) {
	i.used = now
	if now.Sub(i.usedFiled) >= touchEvery {
		i.fileUse()
	}
}

// fileUse makes the last use outlast the program. The caller holds mu.
func (i *nodeImage) fileUse() {
	name := filepath.Join(i.folder(), usedFile)
	if f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
		f.Close()
	}
	os.Chtimes(name, i.used, i.used) // nothing but the order of eviction depends on it
	i.usedFiled = i.used
}

// recall reads when the image was last used: now, if it is new here.
func (i *nodeImage) recall() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if info, err := os.Stat(filepath.Join(i.folder(), usedFile)); err == nil && i.used.IsZero() {
		i.used, i.usedFiled = info.ModTime(), info.ModTime()
	} else if i.used.IsZero() {
		i.touch(time.Now())
	}
}

// pinned reports whether the node was started with an image.
func (n *seedNode) pinned(d images.Digest) bool {
	return slices.ContainsFunc(n.named, func(t job.NodeTask) bool { return t.Image == d })
}

// inUse reports whether a deployment uses an image, as far as the appliance said.
func (n *seedNode) inUse(d images.Digest) bool { return slices.Contains(n.orders.InUse, d) }

// kept returns the images on the disk that are not served.
func (n *seedNode) kept() (list []job.NodeKept) {
	entries, err := os.ReadDir(n.dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		var d images.Digest
		if b, err := hex.DecodeString(e.Name()); err != nil || copy(d[:], b) != len(d) || len(b) != len(d) || n.images[d] != nil {
			continue
		}
		folder := filepath.Join(n.dir, e.Name())
		k := job.NodeKept{Image: d, ImageName: e.Name()[:12]}
		if joined, err := readJoined(folder); err == nil {
			k.ImageName = joined.ImageName
		}
		if info, err := os.Stat(filepath.Join(folder, usedFile)); err == nil {
			k.LastUse = info.ModTime()
		}
		k.Size, _ = folderSize(folder)
		list = append(list, k)
	}
	return list
}

// remove removes an image that is not served from the disk.
func (n *seedNode) remove(d images.Digest) error {
	folder := filepath.Join(n.dir, d.String())
	size, err := folderSize(folder)
	if err != nil || size == 0 {
		return err
	}
	if err := os.RemoveAll(folder); err != nil {
		return fmt.Errorf("remove an image from the disk: %w", err)
	}
	n.space.freed(size)
	n.log.Info("image is removed from the disk", "image", d.String(), "bytes", size)
	return nil
}

// victim is an image that may have to make room.
type victim struct {
	job.NodeKept
	served *nodeImage // nil if it is not
}

// victims returns what may be removed for another image, the one that was used longest ago first.
func (n *seedNode) victims(but images.Digest) (list []victim) {
	for _, k := range n.kept() {
		if !n.inUse(k.Image) && !n.pinned(k.Image) {
			list = append(list, victim{k, nil})
		}
	}
	for d, i := range n.images {
		if d == but || n.inUse(d) || n.pinned(d) {
			continue
		}
		i.mu.Lock()
		list = append(list, victim{job.NodeKept{Image: d, ImageName: i.joined.ImageName, LastUse: i.used}, i})
		i.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b victim) int {
		return cmp.Or(a.LastUse.Compare(b.LastUse), strings.Compare(a.Image.String(), b.Image.String()))
	})
	return list
}

// evict removes an image. It is fetched again when it is ordered again.
func (n *seedNode) evict(v victim, why string) error {
	if v.served != nil {
		v.served.quit()
		<-v.served.ended
		delete(n.images, v.Image)
	}
	n.log.Info("image makes room", "image", v.ImageName, "last use", v.LastUse, "for", why)
	for _, t := range n.orders.Serve {
		if t.Image == v.Image {
			n.evicted[v.Image] = t.Warmed
		}
	}
	return n.remove(v.Image)
}

// minRoom is how many bytes there have to be at least for an image to go on that does not fit whole.
const minRoom = 64 << 20

// makeRoom lets images that had no room go on, as far as others can be removed, and keeps the limit. Before the first order it
// is not known what is in use.
func (n *seedNode) makeRoom() error {
	if !n.told {
		return nil
	}
	changed := false
	for _, i := range n.images {
		need, full := i.lacks()
		if !full {
			continue
		}
		left, evicted, err := n.free(need, i.joined.Image, i.joined.ImageName)
		if err != nil {
			return err
		}
		changed = changed || evicted
		if left < min(need, minRoom) {
			continue
		}
		i.mu.Lock()
		i.full, i.problem = false, ""
		i.mu.Unlock()
		i.look()
	}
	_, evicted, err := n.free(0, images.Digest{}, n.space.String()) // the limit may be lower than at the last start
	if err != nil {
		return err
	}
	if changed || evicted {
		return n.file(n.tasks())
	}
	return nil
}

// free removes images but one until so many bytes are left, as far as there are any that can be removed.
func (n *seedNode) free(need int64, but images.Digest, why string) (left int64, evicted bool, err error) {
	left, err = n.space.left()
	for _, v := range n.victims(but) {
		if err != nil || left >= need {
			break
		}
		if err = n.evict(v, why); err == nil {
			evicted = true
			left, err = n.space.left()
		}
	}
	return left, evicted, err
}

// lacks returns about how many bytes on the disk the image needs still, and whether it waits for them.
func (i *nodeImage) lacks() (need int64, full bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.full || i.d == nil {
		return 0, false
	}
	part := i.want.part(i.d.layout, i.storage.Held)
	need = part.DataLength() - heldOf(part, i.storage)
	if held := i.storage.HeldLength(); held > 0 { // as well compressible as what is here
		if size, err := folderSize(i.folder()); err == nil {
			need = int64(float64(need) * min(1, float64(size)/float64(held)))
		}
	}
	return need, true
}

// noRoom says why an image is not held whole.
func (n *seedNode) noRoom(image string) string {
	used, total, err := n.space.state()
	if err != nil {
		return fmt.Sprintf("no room for more of %s: %v", image, err)
	}
	bound, remedy := n.space.String(), "Give more with --space"
	if n.space.limit > total {
		bound, remedy = "all that its file system has, and less than "+bound, "Make room there"
	}
	return fmt.Sprintf("no room for more of %s: %s of %s are used, which is %s; what fits is held. %s, or drop an image that is not "+
		"needed (`seedbed seed drop`)", image, bytesText(used), bytesText(total), bound, remedy)
}
