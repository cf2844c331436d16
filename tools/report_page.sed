# report.html as C: an array of its lines.
s/\\/\\\\/g
s/"/\\"/g
s/.*/    "&\\n",/
1i\
#include "report_page.h"\
\
const char *const report_page[] = {
$a\
    NULL,\
};
