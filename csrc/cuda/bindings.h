// The module spectrafuse._cuda binds operations under the names that spectrafuse._cpu has for them.
#pragma once

#include "../bindings/bindings.h"
