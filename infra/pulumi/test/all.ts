/** All tests in one process, since a deployment against mocks is made once and looked at often. */

import "./refusals";
import "./golden";
import "./deployment";
import "./policy";
import "./metrics";
