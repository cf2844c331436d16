/* SPDX-License-Identifier: Apache-2.0 */
/* report_page.h - the page of --report, report.html, as the build puts it into the program (report_page.sed). */
#ifndef TOOLS_REPORT_PAGE_H
#define TOOLS_REPORT_PAGE_H

#include <stddef.h>

/* Its lines, each with its end; NULL behind the last. The line "@DATA@" is where the run goes. */
extern const char *const report_page[];

#endif
