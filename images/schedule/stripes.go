package schedule

// ParentGroup returns the group from which a group fetches the pieces of one of so many trees. Each tree goes through groups
// 0 to groups-1; so many fetch from each group, and one from group 0. A group is inside some trees and a leaf of the
// others, so that each passes on about one image, as in a chain, and no piece crosses more groups than a tree is deep.
// It is for uplinks that carry several images: those of a chain carry one at every moment. group is 1 or more.
//
// That trees differ in their inner members is the idea of SplitStream (Castro et al., SOSP 2003).
func ParentGroup(group, groups, tree, trees, fanout int) int {
	n := groups - 1
	turn := tree % trees * n / trees
	place := (group - 1 + turn) % n
	if place == 0 {
		return 0
	}
	return 1 + ((place-1)/fanout-turn+n)%n
}
