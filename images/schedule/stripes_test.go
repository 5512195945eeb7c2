package schedule

import "testing"

func TestTreesReachEveryGroupAndLoadAllAlike(t *testing.T) {
	const trees = 8
	for _, groups := range []int{2, 3, 5, 22, 64, 213, 1000} {
		for _, fanout := range []int{1, 2, 4, 8} {
			children := make([]int, groups) // over all trees
			for tree := range trees {
				for g := 1; g < groups; g++ {
					at, hops := g, 0
					for at != 0 {
						if at < 0 || at >= groups || hops > groups {
							t.Fatalf("group %d of %d, tree %d, fanout %d: no way from group 0", g, groups, tree, fanout)
						}
						at = ParentGroup(at, groups, tree, trees, fanout)
						hops++
					}
					if limit := depth(groups, fanout); hops > limit {
						t.Fatalf("%d hops to group %d of %d, want at most %d", hops, g, groups, limit)
					}
					children[ParentGroup(g, groups, tree, trees, fanout)]++
				}
			}
			if children[0] != trees {
				t.Errorf("%d groups, fanout %d: group 0 passes on %d/%d images", groups, fanout, children[0], trees)
			}
			for g, n := range children {
				if most := trees + 2*fanout; n > most {
					t.Errorf("%d groups, fanout %d: group %d passes on %d/%d images, want at most %d", groups, fanout, g, n, trees, most)
				}
			}
		}
	}
}

// depth is how many hops a tree of so many groups takes, the one from group 0 counted.
func depth(groups, fanout int) (hops int) {
	for place := groups - 2; ; place = (place - 1) / fanout {
		hops++
		if place <= 0 {
			return hops
		}
	}
}
