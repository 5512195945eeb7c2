package layout_test

import (
	"seedbed/images/layout"
	"seedbed/images/swarm"
)

// A layout is the shape of a swarm's content; the swarm itself knows nothing of layouts.
var _ swarm.Pieces = (*layout.Layout)(nil)
