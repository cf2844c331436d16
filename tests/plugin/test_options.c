/* SPDX-License-Identifier: Apache-2.0 */
/* The option reader of mest/plugin_options.h. */
#include "mest/plugin_options.h"
#include "tests/sparse/fixture.h"

START_TEST(numbers_are_read_exactly)
{
    static const char *const good[] = { "0", "1", "-1", "+2", ".5625", "0.75", "12.", "1e-3", "2.5E+2", "123456789012345", "0.1", "0.92", "1e22",
                                        "000000000000000000001.5", "1e-22", "0.000123", "99999.99999" };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        double x = -7;
        ck_assert(mest_option_number(good[i], strlen(good[i]), &x));
        ck_assert_msg(x == strtod(good[i], NULL), "%s gave %.20g", good[i], x);
    }
    static const char *const close[] = { "3.14159265358979323846", "12345678901234567890", "1e300", "1e-300", "0.1234567890123456789" };
    for (size_t i = 0; i < sizeof close / sizeof *close; i++) {
        double x, want = strtod(close[i], NULL);
        ck_assert(mest_option_number(close[i], strlen(close[i]), &x));
        ck_assert_msg(fabs(x - want) <= 1e-14 * fabs(want), "%s gave %.20g", close[i], x);
    }
    static const char *const bad[] = { "", ".", "-", "e5", "1e", "1e+", "1.2.3", "1,5", " 1", "1 ", "0x10", "inf", "nan", "--1", "1-" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        double x;
        ck_assert_msg(!mest_option_number(bad[i], strlen(bad[i]), &x), "'%s' was read", bad[i]);
    }
    double x;
    ck_assert(mest_option_number("1e9999999999999999999", 21, &x) && isinf(x));
    ck_assert(mest_option_number("1e-9999999999999999999", 22, &x) && x == 0);
    ck_assert(mest_option_number("0e9999", 6, &x) && x == 0);
}
END_TEST

START_TEST(walks_and_converts)
{
    mest_error e = { 0 };
    mest_option o = mest_options("s", ",a=1,,b=x/y,c=.5/1/2,d=on,e=-12,");
    int64_t n = 0;
    double list[3];
    char text[8];
    bool flag = false;
    int count = 0, seen = 0;
    while (mest_option_next(&o, &e)) {
        seen++;
        if (mest_option_is(&o, "a"))
            mest_option_int(&o, 0, 9, &n, &e);
        else if (mest_option_is(&o, "b"))
            mest_option_text(&o, text, sizeof text, &e);
        else if (mest_option_is(&o, "c"))
            mest_option_list(&o, 0, 2, list, 3, &count, &e);
        else if (mest_option_is(&o, "d"))
            mest_option_bool(&o, &flag, &e);
        else if (mest_option_is(&o, "e"))
            mest_option_int(&o, -12, -12, &n, &e);
        else
            mest_option_unknown(&o, "a", &e);
    }
    ck_assert_msg(o.status == MEST_OK, "%s", e.msg);
    ck_assert(seen == 5 && n == -12 && flag && count == 3 && list[0] == .5 && list[1] == 1 && list[2] == 2);
    ck_assert_str_eq(text, "x/y");
}
END_TEST

START_TEST(faults_name_scheduler_option_and_value)
{
    static const struct { const char *options, *says; } bad[] = {
        { "a", "scheduler s: option 'a' is not of the form key=value" }, { "a=", "not of the form" }, { "=1", "not of the form" },
        { "b=1", "scheduler s: there is no option 'b'; there are: a" },  { "a=10", "scheduler s: a=10 is not a whole number from 0 to 9" },
        { "a=1x", "a=1x is not a whole number" }, { "a=-", "a=- is not" }, { "a=9999999999999999999999", "is not a whole number" },
        { "a=1,b", "option 'b' is not" }, { "a=1,a=2", "scheduler s: option 'a' is given twice" }, { ",a=1,,a=1,", "'a' is given twice" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mest_error e = { 0 };
        mest_option o = mest_options("s", bad[i].options);
        int64_t n;
        while (mest_option_next(&o, &e)) {
            if (mest_option_is(&o, "a"))
                mest_option_int(&o, 0, 9, &n, &e);
            else
                mest_option_unknown(&o, "a", &e);
        }
        ck_assert_int_eq(o.status, MEST_E_ARGUMENT);
        ck_assert_msg(strstr(e.msg, bad[i].says), "%s: %s", bad[i].options, e.msg);
    }
    mest_option o = mest_options("s", "ab=1,b=a=2,a=3"); /* neither an end nor a value of another is a key */
    for (int i = 0; i < 3; i++)
        ck_assert(mest_option_next(&o, NULL));
    o = mest_options("s", NULL);
    ck_assert(!mest_option_next(&o, NULL) && o.status == MEST_OK);
    o = mest_options("s", "t=longer than that");
    char text[4];
    ck_assert(mest_option_next(&o, NULL));
    mest_option_text(&o, text, sizeof text, NULL);
    ck_assert_int_eq(o.status, MEST_E_ARGUMENT);
}
END_TEST

RUN("plugin options", numbers_are_read_exactly, walks_and_converts, faults_name_scheduler_option_and_value)
