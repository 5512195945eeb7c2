package api

import (
	"fmt"
	"strings"
)

// Kinds of events about what a verification of images found.
const (
	EventDamaged = "image.damaged"
	EventHealed  = "image.healed"
	EventWhole   = "image.whole" // all images were verified and are whole: what was damaged before is healed
)

// Told is what an event about images says.
type Told struct{ Kind, Text string }

// Events tell what a verification found, all says of all images. That nothing was wrong is told to who asked, or where something was healed.
func (r *VerifyReport) Events(all, asked bool) (list []Told) {
	for _, i := range r.Images {
		var left, healed []string
		for _, d := range i.Damage {
			if d.Healed {
				healed = append(healed, d.Text)
			} else {
				left = append(left, d.Text)
			}
		}
		if len(healed) > 0 {
			list = append(list, Told{EventHealed, fmt.Sprintf("%s was damaged and is replaced by a right copy", some(healed, 0))})
		}
		if len(left) > 0 {
			list = append(list, Told{EventDamaged, fmt.Sprintf("%s; `seedbed image verify %s --heal-from DISK` takes it from a disk that holds the image", some(left, i.More), i.Image)})
		}
	}
	if all && r.IsWhole() && (asked || len(list) > 0) {
		list = append(list, Told{EventWhole, fmt.Sprintf("%d images were verified and are whole", len(r.Images))})
	}
	return list
}

// some joins the first sentences and counts the others.
func some(list []string, more int) string {
	const shown = 3
	if n := len(list); n > shown {
		list, more = list[:shown], more+n-shown
	}
	s := strings.Join(list, "; ")
	if more > 0 {
		s += fmt.Sprintf("; and %d more", more)
	}
	return s
}
